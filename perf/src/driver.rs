//! Owns the loop of a run: one thread, one epoll instance, all connections.
//! Does not know how connections were made or what the figures are for.
//! Invariant: between two waits it does nothing but send what is due and count what came.

use crate::account::{Account, Window};
use crate::clock::{self, Nanos};
use crate::consumer::Consumer;
use crate::error::PerfError;
use crate::poll::{Poll, Ready};
use crate::producer::{Allowance, EndToEnd, Producer};
use std::time::Duration;

/// How long after the window what belongs to it is still sent, answered and read.
const DRAIN: Duration = Duration::from_secs(5);
/// The longest sleep, so that a run always ends in time.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// A run, connected and ready to start.
pub struct Load {
    pub producers: Vec<Producer>,
    /// Readers of what is produced, or of what was there where nothing is.
    pub consumers: Vec<Consumer>,
    /// Readers of what was there, beside the others: from the window's beginning on. When all is read, the window ends.
    pub backfill: Vec<Consumer>,
    /// Nothing leaves before.
    pub start: Nanos,
    /// What counts; requests leave from before it (the warm-up) until its end.
    pub window: Window,
    /// Ends the run when so many bytes of batches were produced.
    pub allowance: Allowance,
    /// Asks for events without pause instead of sleeping: exact, and takes a whole core.
    pub spin: bool,
}

/// What was counted.
pub struct Driven {
    pub produced: Account,
    pub consumed: Account,
    pub backfilled: Account,
    /// From the intended time of sending to the batch being in a reader's hands; only with both sides.
    pub end_to_end: Option<EndToEnd>,
    /// Batches acknowledged but not read when waiting ended; their latency is counted as until then.
    pub unread: u64,
    /// Fetches that brought nothing.
    pub empty_answers: u64,
    /// Share of the time in which this thread did something else than wait, 0 to 1.
    pub busy: f64,
}

/// Runs the load to its end.
pub fn drive(load: Load) -> Result<Driven, PerfError> {
    let Load {
        mut producers,
        mut consumers,
        backfill,
        start,
        window,
        mut allowance,
        spin,
    } = load;
    // Of the consumers, those from here on are the backfill's.
    let tails = consumers.len();
    consumers.extend(backfill);
    let mut poll = Poll::new()?;
    for (token, producer) in producers.iter().enumerate() {
        poll.add(&producer.stream, token as u64)?;
    }
    for (index, consumer) in consumers.iter().enumerate() {
        poll.add(&consumer.stream, (producers.len() + index) as u64)?;
    }
    let mut produced = Account::new(window);
    let mut consumed = Account::new(window);
    let mut backfilled = Account::new(window);
    let mut both = (!producers.is_empty() && tails > 0).then(|| EndToEnd::new(window));
    let mut stop = window.to;
    std::thread::sleep(Duration::from_nanos(start.since(clock::now())));
    let started = clock::now();
    let mut now = started;
    let mut idle_ns = 0;
    let mut ready: Vec<Ready> = Vec::new();
    loop {
        // What was meant for before the end leaves after it, if it could not before: its latency is then known.
        for producer in &mut producers {
            producer.fill(now, stop, &mut allowance);
        }
        for (index, consumer) in consumers.iter_mut().enumerate() {
            if index < tails || now >= window.from {
                consumer.fill(now);
            }
        }
        for (token, producer) in producers.iter_mut().enumerate() {
            let blocked = producer.flush(&mut produced)?;
            if blocked != producer.wants_write {
                producer.wants_write = blocked;
                poll.want_write(&producer.stream, token as u64, blocked)?;
            }
        }
        for (index, consumer) in consumers.iter_mut().enumerate() {
            let blocked = consumer.flush()?;
            if blocked != consumer.wants_write {
                consumer.wants_write = blocked;
                poll.want_write(&consumer.stream, (producers.len() + index) as u64, blocked)?;
            }
        }
        let ended = now >= stop;
        let produced_all = producers
            .iter()
            .all(|producer| producer.is_done(now, stop, &allowance));
        let over = match &both {
            // Readers of a tail are never done by themselves: they are when all that was produced was read.
            Some(both) => {
                produced_all && both.pairing.unread() == 0 && (ended || allowance.is_spent())
            }
            None if tails == 0 => produced_all,
            None => ended || consumers.iter().all(Consumer::is_done),
        };
        if over || now >= stop.after(DRAIN) {
            break;
        }
        let wakes_at = producers
            .iter()
            .filter_map(|producer| producer.wakes_at(stop))
            .min();
        let timeout = if spin {
            Duration::ZERO
        } else {
            sleep_until(now, wakes_at)
        };
        let before = clock::now();
        poll.wait(Some(timeout), &mut ready)?;
        now = clock::now();
        if ready.is_empty() || !timeout.is_zero() {
            idle_ns += now.since(before);
        }
        for event in ready.iter().filter(|event| event.readable) {
            let token = event.token as usize;
            match token.checked_sub(producers.len()) {
                None => producers[token].receive(&mut produced, both.as_mut())?,
                Some(index) if index >= tails => consumers[index].receive(&mut backfilled, None)?,
                Some(index) => consumers[index].receive(&mut consumed, both.as_mut())?,
            }
        }
        let read_all = tails < consumers.len() && consumers[tails..].iter().all(Consumer::is_done);
        if read_all && now < stop {
            stop = now;
            for account in [&mut produced, &mut consumed, &mut backfilled] {
                account.close(now);
            }
        }
    }
    let end = clock::now();
    if end < stop {
        produced.close(end);
        consumed.close(end);
        backfilled.close(end);
    }
    for producer in &mut producers {
        producer.give_up(stop, end, &allowance, &mut produced);
    }
    let mut unread = 0;
    if let Some(both) = &mut both {
        let intended: Vec<Nanos> = both.pairing.give_up().collect();
        for intended in intended.into_iter().filter(|&at| window.holds(at)) {
            unread += 1;
            both.latencies.record(intended, end);
            both.series.add(intended, end, 0);
        }
    }
    Ok(Driven {
        produced,
        consumed,
        backfilled,
        end_to_end: both,
        unread,
        empty_answers: consumers
            .iter()
            .map(|consumer| consumer.empty_answers)
            .sum(),
        busy: 1.0 - (idle_ns as f64 / end.since(started).max(1) as f64).min(1.0),
    })
}

fn sleep_until(now: Nanos, wakes_at: Option<Nanos>) -> Duration {
    wakes_at.map_or(SLEEP_MAX, |at| {
        Duration::from_nanos(at.since(now)).min(SLEEP_MAX)
    })
}
