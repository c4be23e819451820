//! Owns a one-task wake-up that is not lost when nobody waits yet.
//! Does not know what it announces; the waiter looks at the state again.
//! Invariant: after `set` the next `wait` returns at once, and only that one.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Local to a shard; at most one task waits at a time.
#[derive(Default)]
pub(crate) struct Signal {
    set: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    pub(crate) fn set(&self) {
        self.set.set(true);
        let waiter = self.waiter.borrow_mut().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    pub(crate) fn wait(&self) -> Wait<'_> {
        Wait(self)
    }

    /// Ready once set; remembers the task otherwise.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.set.replace(false) {
            return Poll::Ready(());
        }
        let mut waiter = self.waiter.borrow_mut();
        match waiter.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waiter = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

pub(crate) struct Wait<'a>(&'a Signal);

impl Future for Wait<'_> {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_set_before_the_wait_is_kept_and_used_once() {
        let signal = Signal::default();
        signal.set();
        signal.set();
        assert_eq!(block_on(poll_once(signal.wait())), Some(()));
        assert_eq!(block_on(poll_once(signal.wait())), None);
    }
}
