//! Owns the write-ahead journal of one shard: every append of the shard, made durable in groups.
//! Does not know partitions' logs beyond telling them how far they are durable.
//! Invariant: a sequence counts as durable only when it and all before it were written and flushed.

pub mod entry;
pub mod recover;
pub mod ring;
#[cfg(test)]
mod tests;

use crate::plant::{self, Plant};
use crate::rt::{self, join_all, DirectBuf, Notified, Notify};
use crate::types::limits::{
    COMMIT_AHEAD_PART, COMMIT_BYTES, COMMIT_BYTES_MIN, COMMIT_COPY_BYTES_MAX, COMMIT_GROUPS_MAX,
    COMMIT_GROUP_BYTES_MAX, COMMIT_SYNCED_BYTES_MAX,
};
use entry::{CommitHeader, EntryHeader, JournalId, ENTRY_BYTES, HEADER_BYTES};
use ring::{JournalFile, Ring};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long nothing may arrive before an empty commit records the last durable sequence.
const WITNESS_IDLE: Duration = Duration::from_millis(20);

/// Something whose entries become durable: a partition.
pub trait Durable {
    fn durable_through(&self, sequence: u64);
}

/// Where a payload lies: commit, byte position in the commit's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location {
    pub sequence: u64,
    pub position: u32,
}

struct Filling {
    buf: DirectBuf,
    used: usize,
    hasher: crc32fast::Hasher,
    touched: Vec<Rc<dyn Durable>>,
}

struct Sealed {
    sequence: u64,
    buf: DirectBuf,
    /// Memory the buffer takes, its unused end included.
    capacity: usize,
    body_bytes: u32,
    body_crc: u32,
    touched: Vec<Rc<dyn Durable>>,
}

/// The buffer of a durable commit.
struct Retained {
    buf: Rc<DirectBuf>,
    capacity: usize,
}

/// Commits that are written and flushed together.
struct Group {
    placed: Vec<Placed>,
    touched: Vec<Rc<dyn Durable>>,
    /// Sequence of the last of them.
    last: u64,
}

/// A group being written.
struct UnderWay {
    group: Group,
    write: Pin<Box<dyn Future<Output = io::Result<Duration>>>>,
    result: Option<io::Result<Duration>>,
}

/// A commit with its place in the ring.
#[derive(Clone)]
struct Placed {
    buf: Rc<DirectBuf>,
    capacity: usize,
    file: Rc<JournalFile>,
    position: u64,
}

struct State {
    filling: Option<Filling>,
    /// Sequence the filling commit will have; sequences begin at 1.
    next: u64,
    sealed: VecDeque<Sealed>,
    /// Buffers of durable commits, oldest first: the shard's tail cache.
    retained: VecDeque<Retained>,
    retained_first: u64,
    /// Memory they take.
    retained_bytes: usize,
    /// Everything up to here is in segments too: those buffers are only a cache.
    flushed: u64,
    durable: u64,
    committing_bytes: usize,
    previous_crc: u32,
    waiters: Vec<(u64, Waker)>,
    failed: Option<String>,
    /// Buffer of a commit that was copied to size; used for the next one.
    spare: Option<DirectBuf>,
    /// Size of the next buffer: a little more than commits took lately, so that little of it stays
    /// unused for as long as the cache keeps it.
    buffer_bytes: usize,
    unwitnessed: bool,
}

/// Counters since start; sizes in bytes, times in nanoseconds.
#[derive(Clone, Debug)]
pub struct JournalStats {
    pub commits: u64,
    pub groups: u64,
    pub bytes: u64,
    pub commit_bytes: hdrhistogram::Histogram<u64>,
    pub flush_ns: hdrhistogram::Histogram<u64>,
}

pub struct Journal {
    id: JournalId,
    generation: u64,
    ring: Rc<Ring>,
    state: RefCell<State>,
    work: Notify,
    /// Gathered bytes from which on the committer wants to hear of more.
    wake_bytes: Cell<usize>,
    stats: RefCell<JournalStats>,
    stopping: Cell<bool>,
    /// Bytes of buffers to keep that are in segments already.
    cache_bytes: usize,
    /// Told after each group: the backlog is shorter.
    pub progressed: Notify,
    on_failure: Box<dyn Fn(&str)>,
}

impl Journal {
    /// A journal on an empty ring. `on_failure` is told once when a write or flush failed: nothing
    /// is acknowledged from then on and the process has to restart and recover.
    pub fn new(
        id: JournalId,
        generation: u64,
        ring: Rc<Ring>,
        cache_bytes: usize,
        on_failure: Box<dyn Fn(&str)>,
    ) -> Rc<Journal> {
        let histogram = |max| hdrhistogram::Histogram::new_with_max(max, 2).expect("valid bounds");
        Rc::new(Journal {
            id,
            generation,
            ring,
            state: RefCell::new(State {
                filling: None,
                next: 1,
                sealed: VecDeque::new(),
                retained: VecDeque::new(),
                retained_first: 1,
                retained_bytes: 0,
                flushed: 0,
                durable: 0,
                committing_bytes: 0,
                previous_crc: 0,
                waiters: Vec::new(),
                failed: None,
                spare: None,
                buffer_bytes: COMMIT_BYTES_MIN,
                unwitnessed: false,
            }),
            work: Notify::new(),
            wake_bytes: Cell::new(0),
            stats: RefCell::new(JournalStats {
                commits: 0,
                groups: 0,
                bytes: 0,
                commit_bytes: histogram(1 << 30),
                flush_ns: histogram(60_000_000_000),
            }),
            stopping: Cell::new(false),
            cache_bytes,
            progressed: Notify::new(),
            on_failure,
        })
    }

    pub fn ring(&self) -> &Rc<Ring> {
        &self.ring
    }

    pub fn stats(&self) -> JournalStats {
        self.stats.borrow().clone()
    }

    /// Appends an entry and gives where its payload lies. `finish` may change the payload's copy
    /// (offset, epoch, timestamp) before it is checksummed. `owner` is asked, with the sequence, who
    /// is to be told when it is durable.
    pub fn append(
        &self,
        entry: &EntryHeader,
        payload: &[u8],
        finish: impl FnOnce(&mut [u8]),
        owner: impl FnOnce(u64) -> Option<Rc<dyn Durable>>,
    ) -> Location {
        assert_eq!(entry.payload_bytes as usize, payload.len());
        let mut state = self.state.borrow_mut();
        let bytes = ENTRY_BYTES + payload.len();
        if state
            .filling
            .as_ref()
            .is_some_and(|f| f.used + bytes > f.buf.len())
        {
            // More comes than was expected.
            state.buffer_bytes = (state.buffer_bytes * 2).min(COMMIT_BYTES);
            state.seal();
        }
        if state.filling.is_none() {
            let need = (HEADER_BYTES + bytes).next_multiple_of(rt::BLOCK);
            let spare = state.spare.take().filter(|b| b.len() >= need);
            let len = need.max(state.buffer_bytes.min(self.commit_bytes()));
            let buf = spare.unwrap_or_else(|| DirectBuf::with_len(len));
            let hasher = self.id.body_hasher();
            state.filling = Some(Filling {
                buf,
                used: HEADER_BYTES,
                hasher,
                touched: Vec::new(),
            });
        }
        let sequence = state.next;
        let filling = state.filling.as_mut().expect("just made");
        let start = filling.used;
        let at = start + ENTRY_BYTES;
        filling.buf[start..at].copy_from_slice(&entry.encode());
        let copy = &mut filling.buf[at..at + payload.len()];
        copy.copy_from_slice(payload);
        finish(copy);
        filling.hasher.update(&filling.buf[start..start + bytes]);
        filling.used += bytes;
        filling.touched.extend(owner(sequence));
        state.unwitnessed = true;
        let wanted = state.gathered_bytes() >= self.wake_bytes.get();
        drop(state);
        if wanted {
            self.work.notify_all();
        }
        Location {
            sequence,
            position: at as u32,
        }
    }

    /// Sequence that an entry appended now would get.
    pub fn next_sequence(&self) -> u64 {
        self.state.borrow().next
    }

    /// Highest durable sequence; 0 before the first.
    pub fn durable_sequence(&self) -> u64 {
        self.state.borrow().durable
    }

    pub fn failed(&self) -> bool {
        self.state.borrow().failed.is_some()
    }

    /// Waits until `sequence` is durable; the reason where it never will be.
    pub async fn wait_durable(&self, sequence: u64) -> Result<(), String> {
        // A connection's task looks again for many reasons: once in the list is enough.
        let mut listed: Option<Waker> = None;
        std::future::poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.durable >= sequence {
                return Poll::Ready(Ok(()));
            }
            if let Some(reason) = &state.failed {
                return Poll::Ready(Err(reason.clone()));
            }
            let waker = cx.waker();
            if !listed.as_ref().is_some_and(|w| w.will_wake(waker)) {
                state.waiters.push((sequence, waker.clone()));
                listed = Some(waker.clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until everything appended so far is durable.
    pub async fn wait_all_durable(&self) -> Result<(), String> {
        let last = {
            let state = self.state.borrow();
            if state.filling.is_some() {
                state.next
            } else {
                state.next - 1
            }
        };
        self.wait_durable(last).await
    }

    /// The buffer of a durable commit while it is still in memory.
    pub fn buffer(&self, sequence: u64) -> Option<Rc<DirectBuf>> {
        let state = self.state.borrow();
        let index = sequence.checked_sub(state.retained_first)?;
        state.retained.get(index as usize).map(|r| r.buf.clone())
    }

    /// Oldest sequence whose buffer is still in memory.
    pub fn retained_first(&self) -> u64 {
        self.state.borrow().retained_first
    }

    pub fn retained_bytes(&self) -> usize {
        self.state.borrow().retained_bytes
    }

    /// Everything up to `sequence` is in segments: those buffers may go when room is needed.
    pub fn set_flushed(&self, sequence: u64) {
        let mut state = self.state.borrow_mut();
        state.flushed = state.flushed.max(sequence);
        state.evict(self.cache_bytes);
    }

    /// Bytes appended that no commit has taken to disk yet.
    pub fn backlog_bytes(&self) -> usize {
        let state = self.state.borrow();
        state.gathered_bytes() + state.committing_bytes
    }

    /// Whether appends should wait for a journal file to come free.
    pub fn is_full(&self) -> bool {
        self.ring.is_full(self.backlog_bytes())
    }

    /// Whether something was committed just now, or is about to be.
    pub fn is_active(&self) -> bool {
        self.state.borrow().unwitnessed
    }

    /// Commits what was gathered, again and again, until `stop` and nothing is left. Several groups
    /// may be under way; they count in their order, whichever is written first.
    pub async fn run(self: Rc<Self>) {
        let mut under_way: VecDeque<UnderWay> = VecDeque::new();
        loop {
            let work = self.work.notified();
            let begun = match self.begin(&mut under_way).await {
                Ok(begun) => begun,
                Err(error) => return self.fail_with(&error),
            };
            if under_way.is_empty() {
                if self.stopping.get() || self.failed() {
                    return;
                }
                self.wake_bytes.set(0);
                self.wait_for_work(work).await;
                continue;
            }
            let more = begun && under_way.len() < COMMIT_GROUPS_MAX;
            self.wake_bytes.set(match more {
                true => self.ahead_bytes(),
                false => usize::MAX,
            });
            match first_done(&mut under_way, work, more).await {
                None => {}
                Some((group, Ok(took))) => self.finish(group, took),
                Some((_, Err(error))) => return self.fail_with(&error),
            }
        }
    }

    /// Begins a group where none is under way, and more where enough was gathered for them. False where
    /// there is no room until another is done.
    async fn begin(&self, under_way: &mut VecDeque<UnderWay>) -> io::Result<bool> {
        loop {
            let due = match under_way.len() {
                0 => true,
                COMMIT_GROUPS_MAX.. => false,
                _ => self.state.borrow().gathered_bytes() >= self.ahead_bytes(),
            };
            if !due {
                return Ok(true);
            }
            let gathered = self.state.borrow_mut().take_group();
            if gathered.is_empty() {
                return Ok(true);
            }
            let group = self.place(gathered, under_way.is_empty()).await?;
            if group.placed.is_empty() {
                return Ok(false);
            }
            under_way.push_back(UnderWay {
                write: Box::pin(write_and_flush(group.placed.clone())),
                group,
                result: None,
            });
        }
    }

    /// Gathered bytes for which it is worth not to wait for the group under way.
    fn ahead_bytes(&self) -> usize {
        self.commit_bytes() / COMMIT_AHEAD_PART
    }

    /// Size at which a commit is sealed: several fit a file, however small.
    fn commit_bytes(&self) -> usize {
        COMMIT_BYTES.min(self.ring.commit_bytes_max() / 4)
    }

    /// Largest batch that fits a commit of its own in a journal file.
    pub fn payload_bytes_max(&self) -> usize {
        self.ring.commit_bytes_max() - rt::BLOCK
    }

    /// Lets the committer end once everything gathered is durable.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.work.notify_all();
    }

    async fn wait_for_work(&self, work: Notified) {
        if !self.state.borrow().unwitnessed {
            return work.await;
        }
        if rt::timeout(WITNESS_IDLE, work).await.is_none() {
            let mut state = self.state.borrow_mut();
            state.unwitnessed = false;
            if state.filling.is_none() && state.sealed.is_empty() {
                let mut buf = DirectBuf::with_len(rt::BLOCK);
                buf.fill(0);
                let hasher = self.id.body_hasher();
                state.filling = Some(Filling {
                    buf,
                    used: HEADER_BYTES,
                    hasher,
                    touched: Vec::new(),
                });
            }
        }
    }

    /// Gives commits their places; without `wait`, only those that find one now.
    async fn place(&self, group: Vec<Sealed>, wait: bool) -> io::Result<Group> {
        let durable_sequence = self.durable_sequence();
        let mut placed: Vec<Placed> = Vec::with_capacity(group.len());
        let mut touched = Vec::new();
        let mut last = 0;
        let mut rest = VecDeque::from(group);
        while let Some(mut sealed) = rest.pop_front() {
            let (sequence, bytes) = (sealed.sequence, sealed.buf.len() as u64);
            let place = if (wait && placed.is_empty()) || plant::active(Plant::PlacedCommitsWait) {
                Some(self.ring.place(sequence, bytes).await?)
            } else {
                self.ring.try_place(sequence, bytes)
            };
            let Some((file, position)) = place else {
                // Files come free only once what they hold is durable: waiting with commits that
                // are placed but not written could be waiting for ourselves.
                rest.push_front(sealed);
                break;
            };
            last = sequence;
            let mut state = self.state.borrow_mut();
            let header = CommitHeader {
                generation: self.generation,
                sequence: sealed.sequence,
                position,
                durable_sequence,
                body_bytes: sealed.body_bytes,
                body_crc: sealed.body_crc,
                previous_crc: state.previous_crc,
            };
            assert_eq!(header.padded_bytes(), sealed.buf.len());
            state.previous_crc = header.encode(self.id, &mut sealed.buf);
            placed.push(Placed {
                buf: Rc::new(sealed.buf),
                capacity: sealed.capacity,
                file,
                position,
            });
            touched.append(&mut sealed.touched);
        }
        self.state.borrow_mut().put_back(rest);
        Ok(Group {
            placed,
            touched,
            last,
        })
    }

    /// What is told, and kept, of a group that is durable.
    fn finish(&self, group: Group, took: Duration) {
        let Group {
            placed,
            touched,
            last,
        } = group;
        let mut stats = self.stats.borrow_mut();
        stats.groups += 1;
        stats.commits += placed.len() as u64;
        stats.flush_ns.saturating_record(took.as_nanos() as u64);
        let mut state = self.state.borrow_mut();
        let mut bytes = 0;
        for Placed { buf, capacity, .. } in placed {
            bytes += buf.len();
            stats.bytes += buf.len() as u64;
            stats.commit_bytes.saturating_record(buf.len() as u64);
            state.retained_bytes += capacity;
            state.retained.push_back(Retained { buf, capacity });
        }
        state.durable = last;
        state.committing_bytes -= bytes;
        state.evict(self.cache_bytes);
        let ready: Vec<Waker> = state.drain_waiters(last);
        drop((stats, state));
        for owner in touched {
            owner.durable_through(last);
        }
        ready.into_iter().for_each(Waker::wake);
        self.progressed.notify_all();
    }

    fn fail_with(&self, error: &io::Error) {
        self.fail(&format!("journal {}: {error}", self.ring.dir().display()));
    }

    fn fail(&self, reason: &str) {
        let mut state = self.state.borrow_mut();
        state.failed = Some(reason.to_string());
        let waiters: Vec<Waker> = state.waiters.drain(..).map(|(_, w)| w).collect();
        drop(state);
        self.ring.close();
        (self.on_failure)(reason);
        waiters.into_iter().for_each(Waker::wake);
        self.progressed.notify_all();
    }
}

/// The first of those under way, when it is done; with `or_work`, nothing as soon as there is `work`.
async fn first_done(
    under_way: &mut VecDeque<UnderWay>,
    work: Notified,
    or_work: bool,
) -> Option<(Group, io::Result<Duration>)> {
    let mut work = std::pin::pin!(work);
    let done = std::future::poll_fn(|cx| {
        for one in under_way.iter_mut().filter(|one| one.result.is_none()) {
            if let Poll::Ready(result) = one.write.as_mut().poll(cx) {
                one.result = Some(result);
            }
        }
        let is_done = |one: &UnderWay| one.result.is_some();
        let done = match plant::active(Plant::GroupsOvertake) {
            false => under_way.front().filter(|one| is_done(one)).map(|_| 0),
            true => under_way.iter().position(is_done),
        };
        match done {
            Some(index) => Poll::Ready(Some(index)),
            None if or_work && work.as_mut().poll(cx).is_ready() => Poll::Ready(None),
            None => Poll::Pending,
        }
    })
    .await?;
    let done = under_way.remove(done)?;
    Some((done.group, done.result.expect("it is done")))
}

/// All writes at once, and only when all are done one flush per file touched. Gives how long it took.
async fn write_and_flush(placed: Vec<Placed>) -> io::Result<Duration> {
    let started = rt::now();
    if let [only] = &placed[..] {
        let (file, buf) = (&only.file.file, only.buf.clone());
        if buf.len() <= COMMIT_SYNCED_BYTES_MAX {
            file.write_synced(buf, only.position).await?;
        } else {
            file.write_at(buf, only.position).await?;
            file.sync().await?;
        }
        return Ok(rt::now() - started);
    }
    let writes = placed
        .iter()
        .map(|p| p.file.file.write_at(p.buf.clone(), p.position));
    for result in join_all(writes).await {
        result?;
    }
    for (i, one) in placed.iter().enumerate() {
        let earlier = &placed[..i];
        if !earlier.iter().any(|e| Rc::ptr_eq(&e.file, &one.file)) {
            one.file.file.sync().await?;
        }
    }
    Ok(rt::now() - started)
}

impl State {
    fn seal(&mut self) {
        let Some(mut filling) = self.filling.take() else {
            return;
        };
        let body_bytes = filling.used - HEADER_BYTES;
        let padded = filling.used.next_multiple_of(rt::BLOCK);
        filling.buf[filling.used..padded].fill(0);
        // Follows the commits' size: up at once, down slowly.
        let wanted = (padded + padded / 4).clamp(COMMIT_BYTES_MIN, COMMIT_BYTES);
        self.buffer_bytes = wanted
            .max(self.buffer_bytes - self.buffer_bytes / 8)
            .next_multiple_of(COMMIT_BYTES_MIN);
        let mut capacity = filling.buf.len();
        let wasteful = capacity - padded > padded / 4;
        let buf = if padded <= COMMIT_COPY_BYTES_MAX && wasteful {
            let mut exact = DirectBuf::with_len(padded);
            exact.copy_from_slice(&filling.buf[..padded]);
            capacity = padded;
            self.spare = Some(filling.buf);
            exact
        } else {
            filling.buf.truncate(padded);
            filling.buf
        };
        self.sealed.push_back(Sealed {
            sequence: self.next,
            buf,
            capacity,
            body_bytes: body_bytes as u32,
            body_crc: filling.hasher.finalize(),
            touched: filling.touched,
        });
        self.next += 1;
    }

    /// Bytes appended that no group has taken yet.
    fn gathered_bytes(&self) -> usize {
        let filling = self.filling.as_ref().map_or(0, |f| f.used);
        filling + self.sealed.iter().map(|s| s.buf.len()).sum::<usize>()
    }

    fn take_group(&mut self) -> Vec<Sealed> {
        if self.failed.is_some() {
            return Vec::new();
        }
        self.seal();
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.sealed.front() {
            if !group.is_empty() && bytes + next.buf.len() > COMMIT_GROUP_BYTES_MAX {
                break;
            }
            bytes += next.buf.len();
            group.extend(self.sealed.pop_front());
        }
        self.committing_bytes += bytes;
        group
    }

    /// Commits of a group that found no room yet: they begin the next one.
    fn put_back(&mut self, rest: VecDeque<Sealed>) {
        for sealed in rest.into_iter().rev() {
            self.committing_bytes -= sealed.buf.len();
            self.sealed.push_front(sealed);
        }
    }

    fn evict(&mut self, budget: usize) {
        while self.retained_bytes > budget && self.retained_first <= self.flushed {
            let Some(oldest) = self.retained.pop_front() else {
                break;
            };
            self.retained_bytes -= oldest.capacity;
            self.retained_first += 1;
        }
    }

    fn drain_waiters(&mut self, durable: u64) -> Vec<Waker> {
        let due = |waiter: &mut (u64, Waker)| waiter.0 <= durable;
        self.waiters.extract_if(.., due).map(|(_, w)| w).collect()
    }
}
