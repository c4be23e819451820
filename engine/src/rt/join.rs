//! Owns waiting for a handful of futures together.
//! Does not know what they do.
//! Invariant: results come in the order of the futures, whichever ends first.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

/// A future until it is done, and then its output.
enum Running<F: Future> {
    Pending(Pin<Box<F>>),
    Done(F::Output),
}

/// Runs a handful of futures at once and gives their results in order.
pub async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Running<F>> = futures.map(|f| Running::Pending(Box::pin(f))).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for slot in running.iter_mut() {
            let Running::Pending(future) = slot else {
                continue;
            };
            match future.as_mut().poll(cx) {
                Poll::Ready(output) => *slot = Running::Done(output),
                Poll::Pending => pending = true,
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    let output = |slot| match slot {
        Running::Done(output) => output,
        Running::Pending(_) => unreachable!("all are done"),
    };
    running.into_iter().map(output).collect()
}
