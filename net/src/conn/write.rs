//! Owns the writing side of a connection: requests under way, and their responses in the order of the requests.
//! Does not know how requests are read.
//! Invariant: responses leave in the order in which their requests came, however the requests overtake each other.

use super::Conn;
use crate::handlers::{fetch, produce};
use crate::ledger::FrameMemory;
use crate::out::Out;
use crate::wire::ApiKey;
use millrace_engine::api::AppendResult;
use millrace_engine::rt;
use std::future::{poll_fn, Future};
use std::io;
use std::pin::{pin, Pin};
use std::task::{Context, Poll};

/// Responses encoded into one write before it is started.
pub(super) const GATHER_BYTES_MAX: usize = 1 << 20;

/// What a client has to take of a response, again and again, to count as one that reads. So much is sent at once, before
/// others have their turn: a socket takes megabytes, and to fill it takes milliseconds.
const PART_BYTES: usize = 64 << 10;

/// A request that was handed over and is not answered yet.
pub(super) struct InFlight {
    pub(super) key: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    pub(super) begun: rt::Mono,
    pub(super) request_bytes: usize,
    pub(super) reserved_bytes: usize,
    /// Given back when the request has been answered.
    pub(super) _memory: FrameMemory,
    pub(super) work: Work,
}

pub(super) enum Work {
    Produce {
        results: Pin<Box<dyn Future<Output = Vec<AppendResult>>>>,
        reply: produce::Reply,
    },
    Fetch {
        results: Pin<Box<dyn Future<Output = fetch::Found>>>,
        reply: fetch::Reply,
    },
}

enum Gathered {
    Write,
    Nothing,
}

enum Answer {
    Produce(Vec<AppendResult>),
    Fetch(fetch::Found),
}

impl Conn {
    pub(super) async fn write_loop(&self, half: &mut rt::WriteHalf) {
        loop {
            match poll_fn(|cx| self.poll_gather(cx)).await {
                Gathered::Nothing => return,
                Gathered::Write => {}
            }
            let out = self.out.replace(self.spare.take());
            self.writing_bytes.set(out.len());
            let held = self.shard.broker.hold_response(out.len());
            self.write_begun.set(Some(rt::now()));
            let result = self.write(half, &out).await;
            self.shard.metrics.bytes_out(out.len());
            drop(held);
            self.write_begun.set(None);
            self.last_active.set(rt::now());
            self.writing_bytes.set(0);
            self.look_again.set(true);
            let mut out = out;
            out.clear();
            self.spare.replace(out);
            match result {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    self.abort(error.into());
                    return;
                }
                None => return,
            }
        }
    }

    /// `None` when the connection is aborted meanwhile. A part at a time, so that it shows whether the client takes any,
    /// and whoever waits for this shard does not wait for all of it.
    async fn write(&self, half: &mut rt::WriteHalf, out: &Out) -> Option<io::Result<()>> {
        for (n, part) in parts(&out.pieces(), PART_BYTES).into_iter().enumerate() {
            if n > 0 {
                self.yielding.set(true);
                rt::yield_now().await;
                self.yielding.set(false);
            }
            let mut write = pin!(half.write_vectored_all(&part));
            let written = poll_fn(|cx| {
                if self.is_aborted() {
                    return Poll::Ready(None);
                }
                write.as_mut().poll(cx).map(Some)
            })
            .await;
            match written {
                Some(Ok(())) => self.write_begun.set(Some(rt::now())),
                Some(Err(_)) | None => return written,
            }
        }
        Some(Ok(()))
    }

    /// Encodes the responses that are due and ready. Ready when there is something to write, or nothing ever again.
    fn poll_gather(&self, cx: &mut Context<'_>) -> Poll<Gathered> {
        let mut now = None;
        while !self.is_aborted() && self.out.borrow().len() < GATHER_BYTES_MAX {
            let Some(mut request) = self.queue.borrow_mut().pop_front() else {
                break;
            };
            match request.poll(cx) {
                Poll::Pending => {
                    self.queue.borrow_mut().push_front(request);
                    break;
                }
                Poll::Ready(answer) => {
                    let now = *now.get_or_insert_with(rt::now);
                    self.answer(request, answer, now);
                }
            }
        }
        if self.is_aborted() {
            return Poll::Ready(Gathered::Nothing);
        }
        if !self.out.borrow().is_empty() {
            return Poll::Ready(Gathered::Write);
        }
        if self.finishing.get() && self.is_answered() {
            return Poll::Ready(Gathered::Nothing);
        }
        Poll::Pending
    }

    fn answer(&self, request: InFlight, answer: Answer, now: rt::Mono) {
        let InFlight {
            key,
            version,
            correlation_id,
            begun,
            ..
        } = request;
        self.request_bytes
            .set(self.request_bytes.get() - request.request_bytes);
        self.reserved_bytes
            .set(self.reserved_bytes.get() - request.reserved_bytes);
        self.look_again.set(true);
        let encoded = match (request.work, answer) {
            (Work::Produce { reply, .. }, Answer::Produce(results)) => reply.encode(
                results,
                &self.shard,
                correlation_id,
                version,
                &mut self.out.borrow_mut(),
            ),
            (Work::Fetch { reply, .. }, Answer::Fetch(found)) => reply.encode(
                found,
                &self.shard,
                correlation_id,
                version,
                &mut self.out.borrow_mut(),
            ),
            (Work::Produce { .. } | Work::Fetch { .. }, _) => {
                unreachable!("each work has its own answer")
            }
        };
        match encoded {
            Ok(failed) => self.shard.metrics.answered(key, failed, now.since(begun)),
            Err(reason) => self.abort(reason),
        }
    }
}

impl InFlight {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut self.work {
            Work::Produce { results, .. } => results.as_mut().poll(cx).map(Answer::Produce),
            Work::Fetch { results, .. } => results.as_mut().poll(cx).map(Answer::Fetch),
        }
    }
}

/// The pieces in order, in parts of `bytes` (the last may have less); a piece may be cut.
fn parts<'a>(pieces: &[&'a [u8]], bytes: usize) -> Vec<Vec<&'a [u8]>> {
    let mut parts = vec![Vec::new()];
    let mut room = bytes;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            if room == 0 {
                parts.push(Vec::new());
                room = bytes;
            }
            let (now, later) = rest.split_at(rest.len().min(room));
            parts.last_mut().expect("never empty").push(now);
            room -= now.len();
            rest = later;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_all_bytes_in_order_and_none_is_too_large() {
        let data: Vec<u8> = (0..100).collect();
        for cuts in [vec![100], vec![1, 99], vec![10, 10, 80], vec![30, 70]] {
            let mut rest = &data[..];
            let pieces: Vec<&[u8]> = cuts
                .iter()
                .map(|cut| rest.split_off(..*cut).expect("the cuts make a hundred"))
                .collect();
            for bytes in [1, 7, 10, 99, 100, 1000] {
                let parts = parts(&pieces, bytes);
                assert_eq!(parts.concat().concat(), data);
                assert_eq!(parts.len(), 100usize.div_ceil(bytes));
                assert!(parts.iter().all(|p| p.concat().len() <= bytes));
            }
        }
        assert!(parts(&[], 5).concat().is_empty());
    }
}
