//! Owns finding offsets by timestamp. Does not know requests.
//! Invariant: the answer is a record below the given end, or nothing.

use super::read::ReadRequest;
use super::records::{first_at, newest, RecordTime};
use super::segment::Scan;
use super::Partition;
use crate::plant::{self, Plant};
use crate::error::PartitionError;
use crate::types::batch::BatchHeader;
use crate::types::Offset;
use std::io;

impl Partition {
    /// First record at or after `timestamp_ms` that lies below `end`.
    pub async fn find_time(
        &self,
        timestamp_ms: i64,
        end: Offset,
    ) -> Result<Option<RecordTime>, PartitionError> {
        self.try_find_time(timestamp_ms, end)
            .await
            .map_err(|e| PartitionError::Storage(e.to_string()))
    }

    /// The record with the largest timestamp below `end`.
    pub async fn find_newest(&self, end: Offset) -> Result<Option<RecordTime>, PartitionError> {
        let best = {
            let log = self.log.borrow();
            let known = log
                .segments
                .iter()
                .filter(|s| s.base < end && s.next_offset > log.log_start && s.bytes > 0);
            known
                .max_by_key(|s| (s.max_timestamp_ms, std::cmp::Reverse(s.base)))
                .map(|s| (s.base, s.max_timestamp_offset))
        };
        let Some((base, offset)) = best else {
            return Ok(None);
        };
        let batch = self.one_batch(offset.max(base), end).await?;
        let Some(batch) = batch else { return Ok(None) };
        newest(&batch).map_err(|e| PartitionError::Storage(e.to_string()))
    }

    async fn try_find_time(
        &self,
        timestamp_ms: i64,
        end: Offset,
    ) -> io::Result<Option<RecordTime>> {
        let candidates: Vec<(Offset, u64)> = {
            let log = self.log.borrow();
            let from = log.log_start;
            let holds =
                |s: &&super::Segment| s.next_offset > from && s.max_timestamp_ms >= timestamp_ms;
            log.segments
                .iter()
                .filter(holds)
                .map(|s| (s.base, s.disk_bytes))
                .collect()
        };
        for (base, disk_bytes) in candidates {
            if disk_bytes > 0 {
                if let Some(found) = self
                    .find_in_segment(base, disk_bytes, timestamp_ms, end)
                    .await?
                {
                    return Ok(Some(found));
                }
            }
            if let Some(found) = self.find_in_tail(base, timestamp_ms, end)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn find_in_segment(
        &self,
        base: Offset,
        disk_bytes: u64,
        timestamp_ms: i64,
        end: Offset,
    ) -> io::Result<Option<RecordTime>> {
        let files = self.open_segment(base).await?;
        let from = {
            let log = self.log.borrow();
            let segment = log.segments.iter().find(|s| s.base == base);
            segment
                .filter(|s| s.index_from == 0)
                .map(|s| s.index.relative_for_time(timestamp_ms))
        };
        let interval = u64::from(self.config().index_interval_bytes);
        let relative = match from {
            Some(relative) => relative,
            None => files
                .index(disk_bytes, interval)
                .await?
                .relative_for_time(timestamp_ms),
        };
        let position = self
            .scan_position(&files, base, base + i64::from(relative))
            .await?;
        let log_start = self.log.borrow().log_start;
        let mut scan = Scan::new(&files, position, disk_bytes);
        let mut off_by_one = plant::active(Plant::TimeLookupOffByOne);
        while let Some((_, header)) = scan.next().await? {
            if header.base_offset >= end {
                break;
            }
            if header.max_timestamp < timestamp_ms || header.last_offset() < log_start {
                continue;
            }
            if std::mem::take(&mut off_by_one) {
                continue;
            }
            let batch = self
                .one_batch(header.base_offset, end)
                .await
                .map_err(io::Error::other)?;
            let Some(batch) = batch else { break };
            if let Some(found) =
                first_at(&batch, timestamp_ms)?.filter(|f| f.offset >= log_start && f.offset < end)
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn find_in_tail(
        &self,
        base: Offset,
        timestamp_ms: i64,
        end: Offset,
    ) -> io::Result<Option<RecordTime>> {
        let log = self.log.borrow();
        let index = log.segments.iter().position(|s| s.base == base);
        let limit = index
            .and_then(|i| log.segments.get(i + 1))
            .map_or(end, |s| s.base.min(end));
        for entry in log
            .tail
            .iter()
            .filter(|e| e.base_offset >= base && e.next_offset() <= limit)
        {
            if entry.max_timestamp_ms < timestamp_ms || entry.next_offset() <= log.log_start {
                continue;
            }
            let Some(chunk) = super::tail_chunk(&self.journal, entry) else {
                continue;
            };
            if let Some(found) =
                first_at(chunk.as_ref(), timestamp_ms)?.filter(|f| f.offset >= log.log_start)
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The bytes of the batch that holds `offset`.
    async fn one_batch(
        &self,
        offset: Offset,
        end: Offset,
    ) -> Result<Option<Vec<u8>>, PartitionError> {
        let request = ReadRequest {
            offset,
            max_bytes: 0,
            at_least_one: true,
        };
        let read = self.read(request, end).await?;
        let Some(chunk) = read.records.first() else {
            return Ok(None);
        };
        let bytes = chunk.as_ref();
        let header = BatchHeader::parse(bytes).map_err(PartitionError::Corrupt)?;
        Ok(Some(bytes[..header.size.min(bytes.len())].to_vec()))
    }
}
