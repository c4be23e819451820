//! Owns the scrubber of a shard: a slow, endless read of all finished segments that checks every block.
//! Does not know readers, nor how damage is mended.
//! Invariant: reads at most the configured bytes a second, and no descriptor or buffer outlives its segment.

use super::Shard;
use crate::log::segment::{SegmentFiles, UnsavedSums};
use crate::log::Partition;
use crate::rt;
use crate::types::limits::{BLOCK_BYTES, SCRUB_DAMAGE_REMEMBERED_MAX, SCRUB_READ_BYTES};
use crate::types::{Offset, PartitionId};
use hashbrown::HashSet;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// A block that was found damaged: told once per start, however often it is read.
type Place = (PartitionId, Offset, u64);

struct Scrubber {
    shard: Rc<Shard>,
    bytes_per_second: u64,
    told: RefCell<HashSet<Place>>,
}

impl Shard {
    /// Reads everything again and again, with a pause before each pass. Runs while the shard lives.
    pub(super) async fn run_scrubber(self: Rc<Self>) {
        let (bytes_per_second, pause) =
            (self.config.scrub_bytes_per_second, self.config.scrub_pause);
        if bytes_per_second == 0 {
            return;
        }
        let scrubber = Scrubber {
            shard: self,
            bytes_per_second,
            told: RefCell::default(),
        };
        while !scrubber.shard.stopping.get() {
            rt::sleep(pause).await;
            scrubber.pass().await;
        }
    }
}

impl Scrubber {
    async fn pass(&self) {
        let partitions: Vec<Rc<Partition>> =
            self.shard.partitions.borrow().values().cloned().collect();
        for partition in partitions {
            // Of a finished segment all checksums are in their file.
            let exchanges = partition.exchanges.get();
            let finished: Vec<(Offset, u64)> = {
                let log = partition.log.borrow();
                let segments = log.segments.iter().filter(|s| s.finished);
                segments.map(|s| (s.base, s.disk_bytes)).collect()
            };
            for (base, bytes) in finished {
                if self.shard.stopping.get() {
                    return;
                }
                let read = self.segment(&partition, base, bytes, exchanges);
                if let Err(error) = read.await {
                    self.failed(&partition, base, 0, exchanges, &error);
                }
            }
            rt::yield_if_needed().await;
        }
    }

    /// Reads one segment through a descriptor of its own: readers' cached ones stay cached.
    async fn segment(
        &self,
        partition: &Partition,
        base: Offset,
        bytes: u64,
        exchanges: u64,
    ) -> io::Result<()> {
        if !in_use(partition, base, exchanges) {
            return Ok(());
        }
        let files = SegmentFiles::open(
            &partition.dir,
            base,
            bytes,
            &UnsavedSums::none(bytes),
            false,
        )
        .await?;
        let mut position = 0;
        while position < bytes && in_use(partition, base, exchanges) {
            if self.shard.stopping.get() {
                return Ok(());
            }
            let left = (bytes - position).next_multiple_of(BLOCK_BYTES as u64);
            let len = left.min(SCRUB_READ_BYTES as u64);
            if files.read(position, len as usize).await.is_err() {
                self.block_by_block(partition, &files, position, len, exchanges)
                    .await;
            }
            self.shard.count_scrubbed(len);
            position += len;
            rt::sleep(Duration::from_secs_f64(
                len as f64 / self.bytes_per_second as f64,
            ))
            .await;
        }
        Ok(())
    }

    /// Something in a stretch is damaged or cannot be read: finds each block that is.
    async fn block_by_block(
        &self,
        partition: &Partition,
        files: &SegmentFiles,
        position: u64,
        len: u64,
        exchanges: u64,
    ) {
        for at in (position..position + len).step_by(BLOCK_BYTES) {
            if let Err(error) = files.read(at, BLOCK_BYTES).await {
                let block = at / BLOCK_BYTES as u64;
                self.failed(partition, files.base(), block, exchanges, &error);
            }
        }
    }

    fn failed(
        &self,
        partition: &Partition,
        base: Offset,
        block: u64,
        exchanges: u64,
        error: &io::Error,
    ) {
        if !in_use(partition, base, exchanges) {
            return; // deleted or exchanged while it was read
        }
        let mut told = self.told.borrow_mut();
        if told.len() >= SCRUB_DAMAGE_REMEMBERED_MAX || !told.insert((partition.id, base, block)) {
            return;
        }
        tracing::error!(
            partition = %partition.dir.display(),
            segment = base,
            block,
            %error,
            "the scrubber found damage: no reader met it yet; `millrace log verify` says what it means"
        );
        self.shard.count_scrub_damage();
    }
}

/// Whether the segment is still part of the log, and its files by name are: no segment of the partition was exchanged since
/// there had been so many `exchanges`, and none is being. What changed is read in the next pass.
fn in_use(partition: &Partition, base: Offset, exchanges: u64) -> bool {
    let unchanged = partition.exchanges.get() == exchanges && !partition.is_exchanging();
    let log = partition.log.borrow();
    unchanged && !partition.deleted.get() && log.segments.iter().any(|s| s.base == base)
}
