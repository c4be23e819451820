//! Owns a fetch's way through the shards: reading, byte budgets, parking until there is enough.
//! Does not know sessions or the wire. Invariant: a fetch ends at its deadline at the latest, and
//! whatever it parked on other shards ends with it.

use super::Shard;
use crate::api::{
    AbortedTransaction, Diverging, FetchItem, FetchOptions, FetchResult, Fetched, RecordChunk,
};
use crate::error::PartitionError;
use crate::log::read::ReadRequest;
use crate::log::Partition;
use crate::plant::{self, Plant};
use crate::rt::{self, Class, Mono, Notify};
use crate::types::limits::IO_BYTES_MAX;
use crate::types::Offset;
use bytes::{Bytes, BytesMut};
use std::rc::Rc;
use std::time::Duration;

type Item = (usize, FetchItem);

/// Bytes that a read gets even where slow readers hold the whole budget, as long as there is any memory.
const READ_BYTES_NEEDED: usize = 64 << 10;

/// So long a fetch waits for memory, also past its own deadline: reads that are under way end sooner, and slow readers
/// are closed sooner while others wait.
const MEMORY_WAIT_MIN: Duration = Duration::from_secs(5);

/// How much is read from disk at once while records are committed: a commit's write and its flush each wait for what the
/// device has begun. With a megabyte, and one for each reader, the p99 of producers was some five times as long.
const READ_BESIDE_COMMITS_BYTES: usize = 256 << 10;

/// One partition's turn in a fetch.
struct Turn {
    /// Bytes that those before it left.
    left: usize,
    /// Nothing was found before it: it gets a whole batch, however large.
    first: bool,
    deadline: Mono,
    memory: Memory,
}

/// Where the memory of what is read comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    /// It is waited for.
    Here,
    /// The shard that asks holds as much until it has what was read. To wait for more here might be to wait for those who
    /// hold it and wait for that shard's.
    Caller,
    /// None is waited for: a few bytes that are there anyway, or nothing.
    Small,
}

/// How many bytes a fetch may find; the first batch may be larger, but for `Memory::Small`.
#[derive(Clone, Copy)]
struct Budget {
    bytes: usize,
    memory: Memory,
}

impl Budget {
    fn new(bytes: usize, memory: Memory) -> Budget {
        Budget { bytes, memory }
    }
}

/// A result on its way to another shard: like `Fetched`, with its bytes in one piece.
struct Shipped {
    bounds: Bounds,
    records: Bytes,
    aborted: Option<Vec<AbortedTransaction>>,
}

/// High watermark, last stable offset, log start and divergence of a `Fetched`.
type Bounds = (Offset, Offset, Offset, Option<Diverging>);

/// What another shard read of its items.
struct ShippedResults {
    results: Vec<(usize, Result<Shipped, PartitionError>)>,
    /// What there is to read for them, as far as that was looked at: at least what was read.
    ready: usize,
}

/// What a fetch has parked, here and on other shards; it ends with the fetch, also where that is dropped.
struct Parked {
    shard: Rc<Shard>,
    cancel: Rc<Notify>,
    away: Vec<usize>,
    token: u64,
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.cancel.notify_all();
        for owner in &self.away {
            let (caller, token) = (self.shard.index, self.token);
            let cancel = move |there: &Rc<Shard>| there.cancel_watch(caller, token);
            let _gone = self.shard.calls.hub().send(*owner, Box::new(cancel));
        }
    }
}

impl Shard {
    /// See `Broker::fetch`.
    pub async fn fetch(
        self: Rc<Self>,
        items: Vec<FetchItem>,
        options: FetchOptions,
    ) -> Vec<FetchResult> {
        let deadline = rt::now() + options.max_wait;
        let mut local: Vec<Item> = Vec::new();
        let mut remote: Vec<Vec<Item>> = Vec::new();
        remote.resize_with(self.shards, Vec::new);
        for (index, item) in items.iter().enumerate() {
            let owner = item.partition.shard(self.shards);
            if owner == self.index {
                local.push((index, *item));
            } else {
                remote[owner].push((index, *item));
            }
        }
        if local.len() == items.len() {
            self.wait_for_bytes(&local, &options, deadline).await;
            return self
                .read_items(
                    &local,
                    &options,
                    Budget::new(options.max_bytes, Memory::Here),
                    deadline,
                )
                .await
                .into_iter()
                .map(|r| r.1)
                .collect();
        }
        self.fetch_across(items.len(), local, remote, options, deadline)
            .await
    }

    async fn fetch_across(
        self: Rc<Self>,
        total: usize,
        local: Vec<Item>,
        remote: Vec<Vec<Item>>,
        options: FetchOptions,
        deadline: Mono,
    ) -> Vec<FetchResult> {
        loop {
            let mut results: Vec<Option<FetchResult>> = (0..total).map(|_| None).collect();
            let mut bytes = 0;
            let mut failed = false;
            let mut note = |index: usize, result: FetchResult, bytes: &mut usize| {
                match &result {
                    Ok(fetched) => *bytes += fetched.bytes(),
                    Err(_) => failed = true,
                }
                results[index] = Some(result);
            };
            // The shards share the budget in a fixed order: a partition further back gets its turn
            // because clients rotate theirs.
            let read = self.read_items(
                &local,
                &options,
                Budget::new(options.max_bytes, Memory::Here),
                deadline,
            );
            for (index, result) in read.await {
                note(index, result, &mut bytes);
            }
            let mut ready = self.ready_behind(&local, &options, bytes);
            for (owner, items) in remote
                .iter()
                .enumerate()
                .filter(|(_, items)| !items.is_empty())
            {
                let wanted = items.iter().map(|(_, item)| item.max_bytes.max(1)).sum();
                let budget = options.max_bytes.saturating_sub(bytes).min(wanted);
                let until = memory_deadline(bytes == 0, deadline);
                let shipped = self
                    .ask_owner(owner, items, options, deadline, budget, until)
                    .await;
                match shipped {
                    Some(list) => {
                        ready = ready.saturating_add(list.ready);
                        let results = list.results.into_iter();
                        results.for_each(|(i, r)| note(i, r.map(|s| s.unpack(&self)), &mut bytes));
                    }
                    None => items
                        .iter()
                        .for_each(|(i, _)| note(*i, Err(PartitionError::Stopping), &mut bytes)),
                }
            }
            let enough = failed || ready >= options.min_bytes;
            if enough || rt::now() >= deadline || self.stopping.get() {
                return results
                    .into_iter()
                    .map(|r| r.expect("every item was read"))
                    .collect();
            }
            let marks: Vec<Offset> = results
                .iter()
                .map(|r| {
                    r.as_ref()
                        .and_then(|r| r.as_ref().ok())
                        .map_or(-1, |f| f.high_watermark)
                })
                .collect();
            self.park_across(&local, &remote, &marks, deadline).await;
        }
    }

    /// Has another shard read its items. What comes is a copy: it takes memory here as well, for which it waits.
    async fn ask_owner(
        self: &Rc<Self>,
        owner: usize,
        items: &[Item],
        options: FetchOptions,
        deadline: Mono,
        budget: usize,
        memory_until: Mono,
    ) -> Option<ShippedResults> {
        let ask = |budget: Budget| {
            let asked = items.to_vec();
            self.at(owner, move |there| async move {
                there.read_to_ship(asked, options, budget, deadline).await
            })
        };
        // The first batch may be larger than what is asked for.
        let one = self.largest_batch(items);
        let little = budget.min(READ_BYTES_NEEDED);
        let needed = one.max(little);
        if self.responses.left() < needed {
            let small = self.responses.take_small(little, memory_until).await;
            if small.is_some() {
                let found = ask(Budget::new(little, Memory::Small)).await?;
                let says_something = |(_, result): &(usize, Result<Shipped, PartitionError>)| {
                    result.as_ref().map_or(true, |s| !s.records.is_empty())
                };
                if found.results.iter().any(says_something) {
                    return Some(found);
                }
            }
        }
        let wanted = one.max(budget);
        let Some(memory) = self.responses.take(wanted, needed, memory_until).await else {
            // Nothing but the offsets; the client asks again.
            return ask(Budget::new(0, Memory::Small)).await;
        };
        // Held until what came is counted by itself.
        ask(Budget::new(budget.min(memory.bytes()), Memory::Caller)).await
    }

    /// What a batch of these topics may have, in bytes.
    fn largest_batch(&self, items: &[Item]) -> usize {
        let image = self.image.borrow();
        let topics = items
            .iter()
            .filter_map(|(_, item)| image.topic_by_id(item.partition.topic));
        let sizes = topics.map(|topic| topic.config.max_message_bytes as usize);
        sizes.max().unwrap_or(0)
    }

    /// Waits until a high watermark differs from its mark (by item index), or the deadline.
    async fn park_across(
        self: &Rc<Self>,
        local: &[Item],
        remote: &[Vec<Item>],
        marks: &[Offset],
        deadline: Mono,
    ) {
        let marked = |items: &[Item]| -> Vec<(FetchItem, Offset)> {
            items.iter().map(|(i, item)| (*item, marks[*i])).collect()
        };
        let wake = Rc::new(Notify::new());
        let woken = wake.notified();
        let token = rt::random_u64();
        // Any news counts: how bytes add up over shards is decided by reading again.
        let away: Vec<usize> = (0..remote.len())
            .filter(|owner| !remote[*owner].is_empty())
            .collect();
        for owner in &away {
            let items = marked(&remote[*owner]);
            let (shard, wake) = (self.clone(), wake.clone());
            let owner = *owner;
            let caller = self.index;
            rt::spawn(Class::Network, async move {
                let wait = move |there: Rc<Shard>| async move {
                    let cancel = there.watch(caller, token);
                    there.wait_for_news(&items, deadline, &cancel).await;
                    there.unwatch(caller, token);
                };
                if shard.at(owner, wait).await.is_some() {
                    wake.notify_all();
                }
            });
        }
        let cancel = Rc::new(Notify::new());
        if !local.is_empty() {
            let (shard, wake, cancel, items) =
                (self.clone(), wake.clone(), cancel.clone(), marked(local));
            rt::spawn(Class::Network, async move {
                shard.wait_for_news(&items, deadline, &cancel).await;
                wake.notify_all();
            });
        }
        // A node that stops wakes its parked fetches; a shard that is gone never answers.
        let left = (deadline - rt::now()) + Duration::from_millis(1);
        let _ends_with_this = Parked {
            shard: self.clone(),
            cancel,
            away,
            token,
        };
        let _woken_or_late = rt::timeout(left, woken).await;
    }

    /// Waits for any high watermark to leave its mark, a cancellation or the deadline.
    async fn wait_for_news(
        self: &Rc<Self>,
        marked: &[(FetchItem, Offset)],
        deadline: Mono,
        cancel: &Rc<Notify>,
    ) {
        let cancelled = cancel.notified();
        let waiter = Rc::new(Notify::new());
        let moved = waiter.notified();
        let found = marked
            .iter()
            .map(|(item, mark)| (self.partition(item.partition), *mark));
        let mut parked = Vec::with_capacity(marked.len());
        let mut news = false;
        for (partition, mark) in found {
            match partition {
                Ok(partition) => {
                    news |= partition.log.borrow().high_watermark() != mark;
                    parked.push(partition);
                }
                Err(_) => news = true,
            }
        }
        if news {
            return;
        }
        parked.iter().for_each(|p| p.park(&waiter));
        let left = deadline - rt::now();
        let _moved_or_late = rt::timeout(left, futures_lite::future::or(moved, cancelled)).await;
        parked.iter().for_each(|p| p.unpark(&waiter));
    }

    pub(super) fn watch(&self, caller: usize, token: u64) -> Rc<Notify> {
        let cancel = Rc::new(Notify::new());
        self.watches
            .borrow_mut()
            .insert((caller, token), cancel.clone());
        cancel
    }

    pub(super) fn unwatch(&self, caller: usize, token: u64) {
        self.watches.borrow_mut().remove(&(caller, token));
    }

    pub(super) fn cancel_watch(&self, caller: usize, token: u64) {
        if let Some(cancel) = self.watches.borrow_mut().remove(&(caller, token)) {
            cancel.notify_all();
        }
    }

    fn park(&self, items: &[Item], waiter: &Rc<Notify>) -> Vec<Rc<Partition>> {
        let parked: Vec<Rc<Partition>> = items
            .iter()
            .filter_map(|(_, i)| self.partition(i.partition).ok())
            .collect();
        parked.iter().for_each(|p| p.park(waiter));
        parked
    }

    /// Waits until the items have `min_bytes`, one of them an error, or the deadline is there.
    async fn wait_for_bytes(
        self: &Rc<Self>,
        items: &[Item],
        options: &FetchOptions,
        deadline: Mono,
    ) {
        if self.enough(items, options) {
            return;
        }
        let waiter = Rc::new(Notify::new());
        let parked = self.park(items, &waiter);
        loop {
            let moved = waiter.notified();
            let left = deadline - rt::now();
            if left.is_zero() || self.stopping.get() || self.enough(items, options) {
                break;
            }
            if rt::timeout(left, moved).await.is_none() {
                break;
            }
        }
        parked.iter().for_each(|p| p.unpark(&waiter));
    }

    /// Whether a read would end the wait.
    fn enough(&self, items: &[Item], options: &FetchOptions) -> bool {
        items.is_empty() || self.ready(items, options) >= options.min_bytes
    }

    /// What there is for items of which so much was read. A read may stop before the end of what there is, and that is there
    /// all the same; it is looked at only where what was read is not enough.
    fn ready_behind(&self, items: &[Item], options: &FetchOptions, read: usize) -> usize {
        match read > 0 && read < options.min_bytes {
            true => self.ready(items, options).max(read),
            false => read,
        }
    }

    /// Bytes that there are to read for these items, as far as they want them, or enough of them; an error is as good as
    /// plenty. Looks only at offsets and positions in memory.
    fn ready(&self, items: &[Item], options: &FetchOptions) -> usize {
        let mut bytes: usize = 0;
        for (_, item) in items {
            let ready = self
                .partition(item.partition)
                .and_then(|partition| partition.ready_bytes(item, options.read_committed));
            match ready {
                Ok(ready) => bytes += ready.min(item.max_bytes.max(1)),
                Err(_) => return options.min_bytes.max(1),
            }
            if bytes >= options.min_bytes {
                break;
            }
        }
        bytes
    }

    async fn read_items(
        self: &Rc<Self>,
        items: &[Item],
        options: &FetchOptions,
        budget: Budget,
        deadline: Mono,
    ) -> Vec<(usize, FetchResult)> {
        let mut left = budget.bytes;
        let mut any = false;
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items {
            let result = match self.partition(item.partition) {
                Ok(partition) => {
                    let turn = Turn {
                        left,
                        first: !any,
                        deadline,
                        memory: budget.memory,
                    };
                    self.read_one(&partition, item, options, turn).await
                }
                Err(error) => Err(error),
            };
            if let Ok(fetched) = &result {
                let bytes = fetched.bytes();
                any |= bytes > 0;
                left = left.saturating_sub(bytes);
            }
            out.push((*index, result));
        }
        out
    }

    async fn read_one(
        &self,
        partition: &Rc<Partition>,
        item: &FetchItem,
        options: &FetchOptions,
        turn: Turn,
    ) -> FetchResult {
        partition.check_epoch(item.current_leader_epoch)?;
        let (mut fetched, mut end) = partition.bounds(options.read_committed);
        if let Some(diverging) = partition.divergence(item.last_fetched_epoch, item.offset) {
            fetched.diverging = Some(diverging);
            return Ok(fetched);
        }
        partition.check_offset(item.offset, partition.log.borrow().high_watermark())?;
        let mut request = ReadRequest {
            offset: item.offset,
            max_bytes: item.max_bytes.min(turn.left),
            at_once: IO_BYTES_MAX,
            at_least_one: turn.first,
        };
        if (request.max_bytes == 0 && !turn.first) || item.offset >= end {
            return Ok(fetched);
        }
        // The first batch may be larger than what is asked for.
        let one = match turn.first {
            true => partition.config().max_message_bytes as usize,
            false => 0,
        };
        let needed = one.max(request.max_bytes.min(READ_BYTES_NEEDED));
        let short = turn.memory == Memory::Here && self.responses.left() < needed;
        if turn.memory == Memory::Small || short {
            // Whoever is at the end of the log gets its few records, whatever others hold.
            let small = ReadRequest {
                max_bytes: request.max_bytes.min(READ_BYTES_NEEDED),
                at_least_one: false,
                ..request
            };
            let found = partition.read_memory(small, end).filter(|b| b.bytes > 0);
            if let Some(batches) = found {
                let until = memory_deadline(turn.first, turn.deadline);
                if let Some(held) = self.responses.take_small(batches.bytes, until).await {
                    self.count_read(&batches);
                    fetched.held = Some(Rc::new(held));
                    fetched.records = batches.records;
                    partition.tell_aborted(&mut fetched, item.offset, end)?;
                    return Ok(fetched);
                }
            }
        }
        if turn.memory == Memory::Small {
            return Ok(fetched);
        }
        let wanted = one.max(request.max_bytes);
        let until = memory_deadline(turn.first, turn.deadline);
        let memory = match turn.memory {
            Memory::Caller => Some(self.responses.hold(wanted)),
            Memory::Here | Memory::Small => self.responses.take(wanted, needed, until).await,
        };
        let Some(memory) = memory else {
            return Ok(fetched); // the client asks again
        };
        // What there was before that may have been deleted meanwhile, and that may happen again while it is read.
        let is_there =
            || partition.check_offset(item.offset, partition.log.borrow().high_watermark());
        is_there()?;
        (fetched, end) = partition.bounds(options.read_committed);
        request.max_bytes = request.max_bytes.min(memory.bytes());
        let batches = match partition.read_memory(request, end) {
            Some(batches) => batches,
            None => {
                let mut alone = None;
                if self.journal.is_active() {
                    request.at_once = READ_BESIDE_COMMITS_BYTES;
                    alone = Some(self.cold_reads.acquire(1).await);
                    // What there was before may have been deleted meanwhile, again.
                    is_there()?;
                    (fetched, end) = partition.bounds(options.read_committed);
                }
                let read = partition.read(request, end).await;
                drop(alone);
                self.limit_open_files(partition);
                let read = read.or_else(|error| is_there().and(Err(error)))?;
                if read.records.is_empty() {
                    is_there()?;
                }
                read
            }
        };
        self.count_read(&batches);
        fetched.held = Some(Rc::new(memory.resized(batches.bytes)));
        fetched.records = batches.records;
        partition.tell_aborted(&mut fetched, item.offset, end)?;
        Ok(fetched)
    }

    async fn read_to_ship(
        self: Rc<Self>,
        items: Vec<Item>,
        options: FetchOptions,
        budget: Budget,
        deadline: Mono,
    ) -> ShippedResults {
        let read = self.read_items(&items, &options, budget, deadline).await;
        let bytes = read.iter().flat_map(|(_, r)| r).map(Fetched::bytes).sum();
        ShippedResults {
            ready: self.ready_behind(&items, &options, bytes),
            results: read
                .into_iter()
                .map(|(i, r)| (i, r.map(Shipped::pack)))
                .collect(),
        }
    }
}

/// Until when a fetch waits for memory. Who holds some already does not wait for more: two of them might wait for
/// each other.
fn memory_deadline(holds_none: bool, deadline: Mono) -> Mono {
    match holds_none {
        true => deadline.max(rt::now() + MEMORY_WAIT_MIN),
        false => rt::now(),
    }
}

impl Shipped {
    fn pack(fetched: Fetched) -> Shipped {
        let mut records = BytesMut::with_capacity(fetched.bytes());
        fetched
            .records
            .iter()
            .for_each(|chunk| records.extend_from_slice(chunk.as_ref()));
        Shipped {
            bounds: (
                fetched.high_watermark,
                fetched.last_stable,
                fetched.log_start,
                fetched.diverging,
            ),
            aborted: fetched.aborted,
            records: records.freeze(),
        }
    }

    fn unpack(self, shard: &Shard) -> Fetched {
        let held = Some(Rc::new(shard.responses.hold(self.records.len())));
        let (high_watermark, last_stable, log_start, diverging) = self.bounds;
        let records = if self.records.is_empty() {
            Vec::new()
        } else {
            vec![RecordChunk::Owned(self.records)]
        };
        Fetched {
            high_watermark,
            last_stable,
            log_start,
            diverging,
            aborted: self.aborted,
            records,
            held,
        }
    }
}

impl Partition {
    /// Offsets for a response, and the offset that the reader may read up to.
    pub fn bounds(&self, read_committed: bool) -> (Fetched, Offset) {
        let log = self.log.borrow();
        let beyond = plant::active(Plant::ServeBeyondHighWatermark);
        let fetched = Fetched {
            high_watermark: if beyond {
                log.next_offset
            } else {
                log.high_watermark()
            },
            last_stable: log.last_stable(),
            log_start: log.log_start,
            // Which there are, is found with the records.
            aborted: read_committed.then(Vec::new),
            ..Fetched::default()
        };
        let end = if read_committed {
            log.last_stable()
        } else {
            log.high_watermark()
        };
        (fetched, end)
    }

    /// Whether the reader's log left ours: its last epoch ended before where it wants to go on.
    fn divergence(&self, last_fetched_epoch: i32, offset: Offset) -> Option<Diverging> {
        if last_fetched_epoch < 0 {
            return None;
        }
        let log = self.log.borrow();
        let (epoch, end_offset) = log
            .epochs
            .end_of(last_fetched_epoch, log.next_offset)
            .unwrap_or((-1, -1));
        let diverged = epoch >= 0 && (epoch < last_fetched_epoch || end_offset < offset);
        diverged.then_some(Diverging { epoch, end_offset })
    }

    /// Bytes a read would find, roughly: everything on disk counts as plenty.
    fn ready_bytes(&self, item: &FetchItem, read_committed: bool) -> Result<usize, PartitionError> {
        self.check_epoch(item.current_leader_epoch)?;
        let (_, end) = self.bounds(read_committed);
        let log = self.log.borrow();
        if item.offset > log.high_watermark()
            || item.offset < log.log_start
            || log.offline_from.is_some()
        {
            return Err(PartitionError::OffsetOutOfRange {
                wanted: item.offset,
                log_start: log.log_start,
                end,
            });
        }
        if item.offset >= end {
            return Ok(0);
        }
        let first = log.tail.partition_point(|e| e.next_offset() <= item.offset);
        let mut bytes = 0;
        for entry in log
            .tail
            .iter()
            .skip(first)
            .take_while(|e| e.next_offset() <= end)
        {
            bytes += entry.bytes as usize;
            if bytes >= item.max_bytes {
                break;
            }
        }
        let on_disk = log
            .tail
            .get(first)
            .is_none_or(|e| e.base_offset > item.offset);
        Ok(if on_disk { usize::MAX / 4 } else { bytes })
    }
}
