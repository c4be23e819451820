//! Owns a share fetch's way through the shards: looking for records, waiting for some, handing them out.
//! Does not know sessions or the wire, nor which record goes to whom (the machine of each partition does).
//! Invariant: a member is given records only together with the bytes they are in, and a fetch ends at its deadline.

use super::coordinator_log::now_ms;
use super::share_partitions::Shared;
use super::Shard;
use crate::api::{FetchItem, FetchOptions, Fetched};
use crate::coord::batch;
use crate::coord::share::{Acquired, ShareError, ShareFetchAsked, ShareFetched};
use crate::error::PartitionError;
use crate::log::marker::outcome;
use crate::rt::{self, Class, Mono, Notify};
use crate::types::batch::BatchHeader;
use crate::types::{Offset, PartitionId};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// Reads of one partition that find nothing but what nobody gets, before others have their turn.
const READS_MAX: usize = 16;

/// Pause before looking again where twice there seemed to be something and was nothing.
const PAUSE: Duration = Duration::from_millis(10);

pub type ShareFetchResult = Result<ShareFetched, ShareError>;

/// A batch that was read, and where its bytes are.
struct Batch<'a> {
    first: Offset,
    last: Offset,
    bytes: &'a [u8],
    /// Its records are for members.
    is_data: bool,
}

impl Shard {
    /// Gives a member records of its partitions, or waits for some; results in the order of the partitions.
    pub async fn share_fetch(self: &Rc<Self>, asked: ShareFetchAsked) -> Vec<ShareFetchResult> {
        let deadline = rt::now() + Duration::from_millis(asked.max_wait_ms);
        let count = asked.partitions.len();
        if count == 0 {
            return Vec::new();
        }
        let mut early = false;
        loop {
            // Each begins with another one, so that none is always the last to get a part of the bytes.
            let turn = rt::random_u64() as usize % count;
            let mut by_owner: Vec<Vec<usize>> = vec![Vec::new(); self.shards];
            for at in (0..count).map(|at| (at + turn) % count) {
                by_owner[asked.partitions[at].shard(self.shards)].push(at);
            }
            let mut results: Vec<ShareFetchResult> =
                (0..count).map(|_| Ok(ShareFetched::default())).collect();
            let (mut bytes, mut records) = (asked.max_bytes, asked.max_records);
            let mut says_something = false;
            for (owner, places) in by_owner.iter().enumerate().filter(|(_, p)| !p.is_empty()) {
                let part = ShareFetchAsked {
                    partitions: places.iter().map(|at| asked.partitions[*at]).collect(),
                    max_bytes: bytes,
                    max_records: records,
                    ..asked.clone()
                };
                let work =
                    move |shard: Rc<Shard>| async move { shard.share_fetch_here(part).await };
                let found = self.at(owner, work).await;
                let gone = || vec![Err(ShareError::NotAvailable); places.len()];
                for (at, result) in places.iter().zip(found.unwrap_or_else(gone)) {
                    if let Ok(fetched) = &result {
                        let given = fetched.acquired.iter().map(|a| a.last - a.first + 1);
                        records = records.saturating_sub(given.sum::<Offset>() as usize);
                        bytes = bytes.saturating_sub(fetched.records.len());
                    }
                    says_something |= result.as_ref().map_or(true, |f| !f.acquired.is_empty());
                    results[*at] = result;
                }
            }
            if says_something || rt::now() >= deadline || self.stopping.get() {
                return results;
            }
            let again = self.share_park(&asked, &by_owner, deadline).await;
            if early && again {
                rt::sleep(PAUSE).await;
            }
            early = again;
        }
    }

    async fn share_fetch_here(self: &Rc<Self>, asked: ShareFetchAsked) -> Vec<ShareFetchResult> {
        let (mut bytes, mut records) = (asked.max_bytes, asked.max_records);
        let mut results = Vec::with_capacity(asked.partitions.len());
        for id in &asked.partitions {
            let any = bytes > 0 && records > 0;
            let result = match any {
                true => self.share_acquire(&asked, *id, bytes, records).await,
                false => Ok(ShareFetched::default()),
            };
            if let Ok(fetched) = &result {
                let given = fetched.acquired.iter().map(|a| a.last - a.first + 1);
                records = records.saturating_sub(given.sum::<Offset>() as usize);
                bytes = bytes.saturating_sub(fetched.records.len());
            }
            results.push(result);
        }
        results
    }

    /// Reads on from the first record that could be had, and acquires what there is.
    async fn share_acquire(
        self: &Rc<Self>,
        asked: &ShareFetchAsked,
        id: PartitionId,
        max_bytes: usize,
        max_records: usize,
    ) -> ShareFetchResult {
        let shared = self.shared(&asked.group, id).await?;
        let _turn = shared.reading.acquire(1).await;
        let options = FetchOptions {
            max_wait: Duration::ZERO,
            min_bytes: 0,
            max_bytes,
            read_committed: self.share_reads_committed(&asked.group),
        };
        for _ in 0..READS_MAX {
            let log_start = shared.partition.log.borrow().log_start;
            let next = |m: &mut crate::coord::share::SharePartition| {
                m.log_begins(log_start);
                m.next_offset()
            };
            let Some(offset) = self.share_step(&shared, next)?.0 else {
                break;
            };
            let item = FetchItem {
                partition: id,
                offset,
                max_bytes,
                current_leader_epoch: -1,
                last_fetched_epoch: -1,
            };
            let fetched = self.clone().fetch(vec![item], options).await.pop();
            let fetched = match fetched.expect("one result for one item") {
                Ok(fetched) => fetched,
                // It begins where nothing was written yet; or it was cut meanwhile, which the next look finds.
                Err(PartitionError::OffsetOutOfRange { .. }) => break,
                Err(error) => return Err(ShareError::Partition(error)),
            };
            let mut whole: Vec<u8> = Vec::with_capacity(fetched.bytes());
            for chunk in &fetched.records {
                whole.extend_from_slice(chunk.as_ref());
            }
            let batches = batches(&whole, &fetched, offset)?;
            drop(fetched);
            if batches.is_empty() {
                break;
            }
            let acquired = self.take_batches(&shared, asked, offset, max_records, &batches)?;
            if let (Some(first), Some(last)) = (acquired.first(), acquired.last()) {
                let (first, last) = (first.first, last.last);
                let of = batches
                    .iter()
                    .filter(|b| b.last >= first && b.first <= last);
                let records: Vec<u8> = of.flat_map(|b| b.bytes.iter().copied()).collect();
                return Ok(ShareFetched {
                    acquired,
                    records: records.into(),
                });
            }
        }
        Ok(ShareFetched::default())
    }

    fn take_batches(
        self: &Rc<Self>,
        shared: &Rc<Shared>,
        asked: &ShareFetchAsked,
        offset: Offset,
        max_records: usize,
        batches: &[Batch],
    ) -> Result<Vec<Acquired>, ShareError> {
        let step = self.share_step(shared, |machine| {
            let mut all: Vec<Acquired> = Vec::new();
            let mut left = max_records;
            let mut behind = offset;
            for batch in batches {
                if left == 0 {
                    break;
                }
                if behind < batch.first {
                    // What was there was compacted away.
                    machine.skip(behind, batch.first - 1);
                }
                behind = batch.last + 1;
                if !batch.is_data {
                    machine.skip(batch.first, batch.last);
                    continue;
                }
                let most = if asked.strict { left } else { usize::MAX };
                let first = batch.first.max(offset);
                let some = machine.acquire(&asked.member, first, batch.last, most, now_ms());
                for one in some {
                    left = left.saturating_sub((one.last - one.first + 1) as usize);
                    match all.last_mut() {
                        Some(before)
                            if before.last + 1 == one.first
                                && before.delivery_count == one.delivery_count =>
                        {
                            before.last = one.last;
                        }
                        Some(_) | None => all.push(one),
                    }
                }
            }
            all
        })?;
        Ok(step.0)
    }

    // Waiting --------------------------------------------------------------------------------------------------------

    /// Waits until there may be records for somebody in one of the partitions, or the deadline. True where there seemed to
    /// be some at once.
    async fn share_park(
        self: &Rc<Self>,
        asked: &ShareFetchAsked,
        by_owner: &[Vec<usize>],
        deadline: Mono,
    ) -> bool {
        let early = Rc::new(Cell::new(false));
        let wake = Rc::new(Notify::new());
        let woken = wake.notified();
        let token = rt::random_u64();
        let caller = self.index;
        let owners = by_owner.iter().enumerate().filter(|(_, p)| !p.is_empty());
        let owners: Vec<usize> = owners.map(|(owner, _)| owner).collect();
        for owner in &owners {
            let places = by_owner[*owner].iter();
            let ids: Vec<PartitionId> = places.map(|at| asked.partitions[*at]).collect();
            let (shard, wake, owner) = (self.clone(), wake.clone(), *owner);
            let (group, early) = (asked.group.clone(), early.clone());
            rt::spawn(Class::Network, async move {
                let wait = move |there: Rc<Shard>| async move {
                    let cancel = there.watch(caller, token);
                    let at_once = there.share_wait(&group, &ids, deadline, &cancel).await;
                    there.unwatch(caller, token);
                    at_once
                };
                // A shard that is gone has nothing to tell.
                if let Some(at_once) = shard.at(owner, wait).await {
                    early.set(early.get() || at_once);
                    wake.notify_all();
                }
            });
        }
        let left = (deadline - rt::now()) + Duration::from_millis(1);
        let _woken_or_late = rt::timeout(left, woken).await;
        for owner in owners {
            match owner == caller {
                true => self.cancel_watch(caller, token),
                false => {
                    let cancel = move |there: &Rc<Shard>| there.cancel_watch(caller, token);
                    let _gone = self.calls.hub().send(owner, Box::new(cancel));
                }
            }
        }
        early.get()
    }

    /// The same on the shard that owns these; true where it did not wait.
    async fn share_wait(
        self: &Rc<Self>,
        group: &str,
        ids: &[PartitionId],
        deadline: Mono,
        cancel: &Rc<Notify>,
    ) -> bool {
        let cancelled = cancel.notified();
        let waiter = Rc::new(Notify::new());
        let moved = waiter.notified();
        let mut parked = Vec::with_capacity(ids.len());
        let mut news = false;
        for id in ids {
            match self.shared(group, *id).await {
                Ok(shared) => {
                    shared.partition.park(&waiter);
                    shared.park(&waiter);
                    news |= self.share_has_some(&shared);
                    parked.push(shared);
                }
                Err(_) => news = true,
            }
        }
        if !news && !self.stopping.get() {
            let left = deadline.since(rt::now());
            let _moved_or_late =
                rt::timeout(left, futures_lite::future::or(moved, cancelled)).await;
        }
        for shared in parked {
            shared.partition.unpark(&waiter);
            shared.unpark(&waiter);
        }
        news
    }

    /// Whether there are records that nobody has.
    fn share_has_some(&self, shared: &Shared) -> bool {
        let committed = self.share_reads_committed(&shared.key.group);
        let (_, end) = shared.partition.bounds(committed);
        let next = shared.look(|machine| machine.next_offset());
        next.is_none_or(|next| next.is_some_and(|next| next < end))
    }
}

/// The batches of what was read, with what is to be given out of them. Those that end before `offset` are left out.
fn batches<'a>(
    whole: &'a [u8],
    fetched: &Fetched,
    offset: Offset,
) -> Result<Vec<Batch<'a>>, ShareError> {
    let damaged = |why: String| ShareError::Partition(PartitionError::Storage(why));
    let mut aborted = fetched.aborted.iter().flatten().peekable();
    // Producers whose records up to their next marker are of aborted transactions.
    let mut aborting: BTreeSet<i64> = BTreeSet::new();
    let mut all = Vec::new();
    let mut rest = whole;
    while !rest.is_empty() {
        let header = BatchHeader::parse(rest);
        let header = header.map_err(|e| ShareError::Partition(PartitionError::Corrupt(e)))?;
        if header.size > rest.len() {
            return Err(damaged("a batch ends beyond what was read".to_string()));
        }
        let (bytes, behind) = rest.split_at(header.size);
        rest = behind;
        while let Some(one) = aborted.next_if(|one| one.first_offset <= header.last_offset()) {
            aborting.insert(one.producer_id);
        }
        let mut is_data = !header.is_control();
        if header.is_control() {
            let records = batch::records(bytes).map_err(|e| damaged(e.to_string()))?;
            let key = records.into_iter().next().and_then(|(key, _)| key);
            if key.and_then(|key| outcome(&key)) == Some(false) {
                aborting.remove(&header.producer_id);
            }
        } else if header.is_transactional() && aborting.contains(&header.producer_id) {
            is_data = false;
        }
        if header.last_offset() >= offset {
            all.push(Batch {
                first: header.base_offset,
                last: header.last_offset(),
                bytes,
                is_data,
            });
        }
    }
    Ok(all)
}
