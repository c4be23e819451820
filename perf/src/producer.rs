//! Owns one producing connection: what it sends next, what is in flight, what the answers say.
//! Does not know epoll or other connections; times come as arguments.
//! Invariant: no more requests are in flight than allowed, and answers come in the order of the requests.

use crate::account::{Account, Carried, Latencies, Window};
use crate::clock::{self, Nanos};
use crate::error::PerfError;
use crate::link::{Inbox, Outbox};
use crate::pace::Pace;
use crate::pairing::{Pair, Pairing};
use crate::scan;
use crate::series::Series;
use crate::template::Template;
use std::collections::VecDeque;
use std::net::TcpStream;
use std::rc::Rc;

/// First size of the buffer for answers.
const INBOX_BYTES: usize = 64 << 10;

struct Sent {
    correlation: i32,
    intended: Nanos,
    carried: Carried,
}

/// Bytes of batches that may still be sent; shared by all connections of a run.
#[derive(Clone, Copy, Debug)]
pub struct Allowance(pub Option<u64>);

impl Allowance {
    pub fn is_spent(&self) -> bool {
        self.0 == Some(0)
    }

    fn spend(&mut self, bytes: u64) {
        if let Some(left) = &mut self.0 {
            *left = left.saturating_sub(bytes);
        }
    }
}

/// Reading and joining what a tail reader read; only where a run has both sides.
pub struct EndToEnd {
    pub pairing: Pairing,
    pub latencies: Latencies,
    pub series: Series,
}

impl EndToEnd {
    pub fn new(window: Window) -> EndToEnd {
        EndToEnd {
            pairing: Pairing::default(),
            latencies: Latencies::default(),
            series: Series::new(window),
        }
    }

    /// Counts what was meant for `window`.
    pub fn record(&mut self, pair: Pair, window: Window) {
        if window.holds(pair.intended) {
            self.latencies.record(pair.intended, pair.read);
            self.series.add(pair.intended, pair.read, 0);
        }
    }
}

/// A connection that produces.
pub struct Producer {
    pub stream: TcpStream,
    outbox: Outbox,
    inbox: Inbox,
    /// Sent in turn.
    templates: Rc<[Rc<Template>]>,
    next: usize,
    pace: Pace,
    in_flight: VecDeque<Sent>,
    in_flight_max: usize,
    correlation: i32,
    /// Whether the broker answers (not with acks=0).
    answered: bool,
    /// Whether epoll was asked for writability.
    pub wants_write: bool,
}

impl Producer {
    /// Sends `templates` in turn, beginning with that at `first`.
    pub fn new(
        stream: TcpStream,
        templates: Rc<[Rc<Template>]>,
        first: usize,
        in_flight_max: usize,
        answered: bool,
    ) -> Producer {
        assert!(!templates.is_empty() && in_flight_max > 0 && first < templates.len());
        Producer {
            stream,
            outbox: Outbox::default(),
            inbox: Inbox::new(INBOX_BYTES),
            templates,
            next: first,
            pace: Pace::Maximum,
            in_flight: VecDeque::with_capacity(in_flight_max),
            in_flight_max,
            correlation: 0,
            answered,
            wants_write: false,
        }
    }

    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < self.in_flight_max
    }

    /// Whether all that was meant for before `stop` has left and is answered.
    pub fn is_done(&self, now: Nanos, stop: Nanos, allowance: &Allowance) -> bool {
        let more = self.pace.next_at().map_or(now < stop, |at| at < stop);
        self.in_flight.is_empty() && (!more || allowance.is_spent())
    }

    /// When there will be something to send before `stop`, if nothing arrives until then.
    pub fn wakes_at(&self, stop: Nanos) -> Option<Nanos> {
        let at = self.pace.next_at().filter(|&at| at < stop);
        at.filter(|_| self.has_room())
    }

    /// Queues the requests that are due and meant for before `stop`, as far as there is room.
    pub fn fill(&mut self, now: Nanos, stop: Nanos, allowance: &mut Allowance) {
        while self.has_room() && !allowance.is_spent() {
            let Some(intended) = self.pace.due(now).filter(|&at| at < stop) else {
                return;
            };
            self.pace.advance();
            let template = &self.templates[self.next];
            self.next = (self.next + 1) % self.templates.len();
            self.correlation = self.correlation.wrapping_add(1);
            let carried = Carried {
                bytes: template.batch_bytes,
                records: template.records,
            };
            allowance.spend(carried.bytes);
            self.outbox.push(Rc::clone(template), self.correlation);
            self.in_flight.push_back(Sent {
                correlation: self.correlation,
                intended,
                carried,
            });
        }
    }

    /// Writes what the socket takes; true if something is left for later.
    pub fn flush(&mut self, account: &mut Account) -> Result<bool, PerfError> {
        if self.outbox.is_empty() {
            return Ok(false);
        }
        let left = self.outbox.write_to(&mut self.stream)?;
        if !self.answered && left > 0 {
            // Nothing will ever be known of these but that the kernel took them.
            let now = clock::now();
            for sent in self.in_flight.drain(..left) {
                account.answered(sent.intended, now, sent.carried);
            }
        }
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
            let now = clock::now();
            while let Some(frame) = self.inbox.next_frame()? {
                let Some(sent) = self.in_flight.pop_front() else {
                    return Err(PerfError::Usage(
                        "the broker answered what was not asked".into(),
                    ));
                };
                let mut carried = sent.carried;
                let (mut partitions, mut refused) = (0, 0);
                let got = scan::produce_response(self.inbox.frame(frame), |produced| {
                    partitions += 1;
                    if produced.error_code != 0 {
                        refused += 1;
                        account.refused(produced.error_code);
                    } else if let Some(both) = end_to_end.as_deref_mut() {
                        let pair = both.pairing.produced(
                            produced.partition,
                            produced.base_offset,
                            sent.intended,
                        );
                        if let Some(pair) = pair {
                            both.record(pair, account.window);
                        }
                    }
                })?;
                if got != sent.correlation {
                    return Err(PerfError::Order {
                        expected: sent.correlation,
                        got,
                    });
                }
                if refused > 0 {
                    // All partitions of a request carry the same batch.
                    carried.bytes = carried.bytes / partitions * (partitions - refused);
                    carried.records = carried.records / partitions * (partitions - refused);
                }
                account.answered(sent.intended, now, carried);
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Counts what has no answer at `end`, the end of waiting, and what was meant for before `stop` but never left.
    pub fn give_up(
        &mut self,
        stop: Nanos,
        end: Nanos,
        allowance: &Allowance,
        account: &mut Account,
    ) {
        for sent in self.in_flight.drain(..) {
            account.unanswered(sent.intended, end);
        }
        if allowance.is_spent() {
            return;
        }
        while let Some(at) = self.pace.next_at().filter(|&at| at < stop) {
            account.unsent(at, end);
            self.pace.advance();
        }
    }
}
