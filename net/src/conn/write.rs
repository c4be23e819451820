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
const GATHER_BYTES_MAX: usize = 1 << 20;

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
        results: Pin<Box<dyn Future<Output = Option<fetch::Found>>>>,
        reply: fetch::Reply,
    },
}

enum Gathered {
    Write,
    Nothing,
}

enum Answer {
    Produce(Vec<AppendResult>),
    /// None: the fetch gave up because the connection ended.
    Fetch(Option<fetch::Found>),
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

    /// `None` when the connection is aborted meanwhile.
    async fn write(&self, half: &mut rt::WriteHalf, out: &Out) -> Option<io::Result<()>> {
        let pieces = out.pieces();
        let mut write = pin!(half.write_vectored_all(&pieces));
        poll_fn(|cx| {
            if self.is_aborted() {
                return Poll::Ready(None);
            }
            write.as_mut().poll(cx).map(Some)
        })
        .await
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
