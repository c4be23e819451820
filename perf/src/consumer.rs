//! Owns one consuming connection: its partitions, their offsets, and what the answers bring.
//! Does not know epoll or other connections.
//! Invariant: one fetch is in flight at most; an offset moves only past whole batches that arrived.

use crate::account::{Account, Carried};
use crate::clock::{self, Nanos};
use crate::error::PerfError;
use crate::link::{Inbox, Outbox};
use crate::producer::EndToEnd;
use crate::scan;
use crate::template::FetchTemplate;
use std::collections::HashMap;
use std::net::TcpStream;
use std::rc::Rc;

/// Beyond the largest answer asked for, for a batch that is larger by itself and for headers.
const INBOX_SLACK_BYTES: usize = 1 << 20;

/// Where to read a partition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    pub partition: i32,
    pub next_offset: i64,
    /// Reading is done here; `None` for a reader of the tail.
    pub end_offset: Option<i64>,
}

impl Position {
    fn is_done(&self) -> bool {
        self.end_offset.is_some_and(|end| self.next_offset >= end)
    }
}

/// Which partitions' batches are joined with what was produced: those that are `own` modulo `readers`.
///
/// Where several readers read everything, each is so looked at, and each batch costs the load thread once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Looked {
    pub own: usize,
    pub readers: usize,
}

impl Looked {
    fn at(self, partition: i32) -> bool {
        usize::try_from(partition).is_ok_and(|index| index % self.readers == self.own)
    }
}

/// A connection that consumes.
pub struct Consumer {
    pub stream: TcpStream,
    outbox: Outbox,
    inbox: Inbox,
    template: FetchTemplate,
    positions: Vec<Position>,
    index_of: HashMap<i32, usize>,
    in_flight: Option<(i32, Nanos)>,
    correlation: i32,
    check_crc: bool,
    looked: Looked,
    /// Answers that brought nothing: the long poll timed out.
    pub empty_answers: u64,
    /// Whether epoll was asked for writability.
    pub wants_write: bool,
}

impl Consumer {
    /// `template` must be made for the partitions of `positions`, in their order; `answer_bytes` is what it asks for
    /// at most.
    pub fn new(
        stream: TcpStream,
        template: FetchTemplate,
        positions: Vec<Position>,
        answer_bytes: usize,
        check_crc: bool,
        looked: Looked,
    ) -> Consumer {
        assert!(looked.own < looked.readers);
        let index_of = positions
            .iter()
            .enumerate()
            .map(|(i, p)| (p.partition, i))
            .collect();
        Consumer {
            stream,
            outbox: Outbox::default(),
            inbox: Inbox::new(answer_bytes + INBOX_SLACK_BYTES),
            template,
            positions,
            index_of,
            in_flight: None,
            correlation: 0,
            check_crc,
            looked,
            empty_answers: 0,
            wants_write: false,
        }
    }

    /// Whether every partition was read to its end.
    pub fn is_done(&self) -> bool {
        self.positions.iter().all(Position::is_done)
    }

    /// Queues the next fetch, unless one is in flight or all is read.
    pub fn fill(&mut self, now: Nanos) {
        if self.in_flight.is_some() || self.is_done() {
            return;
        }
        for (index, position) in self.positions.iter().enumerate() {
            self.template.set_offset(index, position.next_offset);
        }
        self.correlation = self.correlation.wrapping_add(1);
        self.outbox
            .push(Rc::new(self.template.snapshot()), self.correlation);
        self.in_flight = Some((self.correlation, now));
    }

    /// Writes what the socket takes; true if something is left for later.
    pub fn flush(&mut self) -> Result<bool, PerfError> {
        self.outbox.write_to(&mut self.stream)?;
        Ok(!self.outbox.is_empty())
    }

    /// Reads and counts the answers that are here.
    pub fn receive(
        &mut self,
        account: &mut Account,
        mut end_to_end: Option<&mut EndToEnd>,
    ) -> Result<(), PerfError> {
        loop {
            let more = self.inbox.read_from(&mut self.stream)?;
            while let Some(frame) = self.inbox.next_frame()? {
                let now = clock::now();
                let Some((expected, asked_at)) = self.in_flight.take() else {
                    return Err(PerfError::Usage(
                        "the broker answered what was not asked".into(),
                    ));
                };
                let mut carried = Carried::default();
                let mut refused = None;
                let (positions, index_of) = (&mut self.positions, &self.index_of);
                let (check_crc, looked) = (self.check_crc, self.looked);
                let mut damaged = 0u64;
                let (got, error_code) = scan::fetch_response(self.inbox.frame(frame), |fetched| {
                    if fetched.error_code != 0 {
                        refused = Some((fetched.partition, fetched.error_code));
                        return Ok(());
                    }
                    let Some(&index) = index_of.get(&fetched.partition) else {
                        return Ok(());
                    };
                    let both = end_to_end.as_deref_mut();
                    let mut joined = both.filter(|_| looked.at(fetched.partition));
                    let position = &mut positions[index];
                    let mut records = fetched.records;
                    while let Some(batch) = scan::next_batch(&mut records)? {
                        // A fetch from the middle of a batch brings all of it.
                        if batch.next_offset <= position.next_offset {
                            continue;
                        }
                        if check_crc && !batch.is_intact() {
                            damaged += 1;
                        }
                        position.next_offset = batch.next_offset;
                        carried.bytes += batch.bytes.len() as u64;
                        carried.records += batch.records;
                        if let Some(both) = joined.as_deref_mut() {
                            let pair = both.pairing.read(fetched.partition, batch.base_offset, now);
                            if let Some(pair) = pair {
                                both.record(pair, account.window);
                            }
                        }
                    }
                    Ok(())
                })?;
                if got != expected {
                    return Err(PerfError::Order { expected, got });
                }
                if error_code != 0 {
                    let what = "fetch".to_string();
                    return Err(PerfError::Refused {
                        what,
                        code: error_code,
                    });
                }
                if let Some((partition, code)) = refused {
                    let what = format!("fetch of partition {partition}");
                    return Err(PerfError::Refused { what, code });
                }
                if damaged > 0 {
                    return Err(PerfError::Usage(format!(
                        "{damaged} batches came with a wrong checksum"
                    )));
                }
                if carried.bytes == 0 {
                    self.empty_answers += 1;
                } else {
                    account.answered(asked_at, now, carried);
                }
            }
            if !more {
                return Ok(());
            }
        }
    }
}
