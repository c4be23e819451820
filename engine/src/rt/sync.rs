//! Owns the waiting tools of one shard: oneshot, Notify, Semaphore. They are local (`!Send`) and need no runtime.
//! Does not know who waits for what.
//! Invariant: no wake-up is lost, and a waiter that is dropped gives back what it was granted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
struct OneState<T> {
    value: Option<T>,
    waker: Option<Waker>,
    sender_gone: bool,
    receiver_gone: bool,
}

/// The side of [`oneshot`] that gives the value.
#[derive(Debug)]
pub struct OneSender<T>(Rc<RefCell<OneState<T>>>);

/// The side of [`oneshot`] that awaits the value: `Some(value)`, or None if the sender was dropped.
#[derive(Debug)]
pub struct OneReceiver<T>(Rc<RefCell<OneState<T>>>);

/// A channel for one value between two tasks of the same shard.
pub fn oneshot<T>() -> (OneSender<T>, OneReceiver<T>) {
    let state = Rc::new(RefCell::new(OneState {
        value: None,
        waker: None,
        sender_gone: false,
        receiver_gone: false,
    }));
    (OneSender(state.clone()), OneReceiver(state))
}

impl<T> OneSender<T> {
    /// Gives the value, or gets it back when the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut state = self.0.borrow_mut();
        if state.receiver_gone {
            return Err(value);
        }
        state.value = Some(value);
        Ok(())
        // The drop of `self` wakes the receiver.
    }

    /// Whether the receiver is gone, so that the work for it may stop.
    pub fn is_closed(&self) -> bool {
        self.0.borrow().receiver_gone
    }
}

impl<T> Drop for OneSender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.borrow_mut();
            state.sender_gone = true;
            state.waker.take()
        };
        if let Some(w) = waker {
            w.wake();
        }
    }
}

impl<T> OneReceiver<T> {
    /// The value, if it has arrived.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.borrow_mut().value.take()
    }
}

impl<T> Future for OneReceiver<T> {
    type Output = Option<T>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.borrow_mut();
        if let Some(v) = state.value.take() {
            return Poll::Ready(Some(v));
        }
        if state.sender_gone {
            return Poll::Ready(None);
        }
        keep_waker(&mut state.waker, cx);
        Poll::Pending
    }
}

impl<T> Drop for OneReceiver<T> {
    fn drop(&mut self) {
        let value = {
            let mut state = self.0.borrow_mut();
            state.receiver_gone = true;
            state.waker = None;
            state.value.take()
        };
        // Outside of the borrow: the value may own the other end of another channel, or even of this one.
        drop(value);
    }
}

fn keep_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(w) => w.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

#[derive(Debug, Default)]
struct NotifyState {
    generation: Cell<u64>,
    next_id: Cell<u64>,
    waiters: RefCell<Vec<(u64, Waker)>>,
}

/// Wakes everybody who waits. There are no permits: a notification concerns the [`Notified`] futures that exist at that
/// moment (created, polled or not) and is not remembered for later ones. So: create the future, check the condition,
/// await the future.
#[derive(Debug, Default, Clone)]
pub struct Notify(Rc<NotifyState>);

impl Notify {
    /// With nobody waiting. Clones share the waiters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Completes every [`Notified`] that exists now.
    pub fn notify_all(&self) {
        self.0.generation.set(self.0.generation.get() + 1);
        let waiters = std::mem::take(&mut *self.0.waiters.borrow_mut());
        for (_, w) in waiters {
            w.wake();
        }
    }

    /// Completes at the first [`notify_all`](Self::notify_all) after this call (not after the first poll).
    pub fn notified(&self) -> Notified {
        Notified {
            state: self.0.clone(),
            generation: self.0.generation.get(),
            id: None,
        }
    }

    /// How many have been polled and wait.
    pub fn waiting(&self) -> usize {
        self.0.waiters.borrow().len()
    }
}

/// See [`Notify::notified`].
#[derive(Debug)]
pub struct Notified {
    state: Rc<NotifyState>,
    generation: u64,
    id: Option<u64>,
}

impl Future for Notified {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.state.generation.get() != self.generation {
            self.id = None;
            return Poll::Ready(());
        }
        let state = self.state.clone();
        let mut waiters = state.waiters.borrow_mut();
        match self.id {
            Some(id) => {
                let slot = waiters.iter_mut().find(|w| w.0 == id);
                let slot = slot.expect("a waiter leaves the list only by notify_all or drop");
                slot.1.clone_from(cx.waker());
            }
            None => {
                let id = state.next_id.get();
                state.next_id.set(id + 1);
                waiters.push((id, cx.waker().clone()));
                self.id = Some(id);
            }
        }
        Poll::Pending
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut waiters = self.state.waiters.borrow_mut();
        if let Some(i) = waiters.iter().position(|w| w.0 == id) {
            waiters.swap_remove(i);
        }
    }
}

#[derive(Debug)]
struct Waiter {
    n: u64,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct SemState {
    capacity: u64,
    free: Cell<u64>,
    queue: RefCell<VecDeque<Rc<Waiter>>>,
}

impl SemState {
    fn release(&self, n: u64) {
        let free = self.free.get() + n;
        assert!(free <= self.capacity, "more permits released than exist");
        self.free.set(free);
        self.grant();
    }

    /// Serves the queue strictly in order, as far as the permits go.
    fn grant(&self) {
        loop {
            let waker = {
                let mut queue = self.queue.borrow_mut();
                match queue.front() {
                    Some(first) if first.n <= self.free.get() => {
                        self.free.set(self.free.get() - first.n);
                        first.granted.set(true);
                        let first = queue.pop_front().expect("front exists");
                        let waker = first.waker.borrow_mut().take();
                        waker
                    }
                    Some(_) | None => return,
                }
            };
            if let Some(w) = waker {
                w.wake();
            }
        }
    }
}

/// Counts something bounded: bytes of memory, requests in flight. First come, first served, so a large request is not
/// starved by small ones. Clones share the count.
#[derive(Debug, Clone)]
pub struct Semaphore(Rc<SemState>);

impl Semaphore {
    /// With `capacity` permits, all free.
    pub fn new(capacity: u64) -> Self {
        Semaphore(Rc::new(SemState {
            capacity,
            free: Cell::new(capacity),
            queue: RefCell::new(VecDeque::new()),
        }))
    }

    /// Waits for `n` permits, in turn.
    ///
    /// # Panics
    /// If `n` is more than the capacity: it could never be served.
    pub fn acquire(&self, n: u64) -> Acquire {
        assert!(
            n <= self.0.capacity,
            "{n} permits asked of {}",
            self.0.capacity
        );
        Acquire {
            state: self.0.clone(),
            n,
            waiter: None,
            done: false,
        }
    }

    /// `n` permits if they are free and nobody waits.
    pub fn try_acquire(&self, n: u64) -> Option<Permit> {
        if !self.0.queue.borrow().is_empty() || self.0.free.get() < n {
            return None;
        }
        self.0.free.set(self.0.free.get() - n);
        Some(Permit {
            state: self.0.clone(),
            n,
        })
    }

    /// Permits free now.
    pub fn available(&self) -> u64 {
        self.0.free.get()
    }

    /// All permits.
    pub fn capacity(&self) -> u64 {
        self.0.capacity
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.0.queue.borrow().len()
    }
}

/// Permits held; dropping it gives them back.
#[derive(Debug)]
pub struct Permit {
    state: Rc<SemState>,
    n: u64,
}

impl Permit {
    /// Permits held.
    pub fn count(&self) -> u64 {
        self.n
    }

    /// Gives back all but `keep` permits.
    pub fn shrink(&mut self, keep: u64) {
        assert!(keep <= self.n, "a permit cannot grow");
        let back = self.n - keep;
        self.n = keep;
        self.state.release(back);
    }

    /// Takes `n` of the permits into a permit of its own.
    pub fn split(&mut self, n: u64) -> Permit {
        assert!(n <= self.n, "a permit cannot grow");
        self.n -= n;
        Permit {
            state: self.state.clone(),
            n,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.n > 0 {
            self.state.release(self.n);
        }
    }
}

/// See [`Semaphore::acquire`].
#[derive(Debug)]
pub struct Acquire {
    state: Rc<SemState>,
    n: u64,
    waiter: Option<Rc<Waiter>>,
    done: bool,
}

impl Future for Acquire {
    type Output = Permit;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        assert!(!self.done, "polled after completion");
        let got = match &self.waiter {
            Some(w) => w.granted.get(),
            None => {
                let first = self.state.queue.borrow().is_empty();
                let enough = self.state.free.get() >= self.n;
                if first && enough {
                    self.state.free.set(self.state.free.get() - self.n);
                }
                first && enough
            }
        };
        if got {
            self.done = true;
            return Poll::Ready(Permit {
                state: self.state.clone(),
                n: self.n,
            });
        }
        match &self.waiter {
            Some(w) => keep_waker(&mut w.waker.borrow_mut(), cx),
            None => {
                let w = Rc::new(Waiter {
                    n: self.n,
                    granted: Cell::new(false),
                    waker: RefCell::new(Some(cx.waker().clone())),
                });
                self.state.queue.borrow_mut().push_back(w.clone());
                self.waiter = Some(w);
            }
        }
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let Some(w) = self.waiter.take() else { return };
        if w.granted.get() {
            self.state.release(self.n);
        } else {
            self.state
                .queue
                .borrow_mut()
                .retain(|other| !Rc::ptr_eq(other, &w));
            // The next in line may fit where this one did not.
            self.state.grant();
        }
    }
}
