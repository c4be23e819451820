//! Owns messages between the shards of a node: calls to another shard and their replies.
//! Does not know what is called. Everything goes through one inbox per shard, in order.
//! Invariant: a caller has at most `CROSS_SHARD_CALLS_MAX` calls under way to one shard, so inboxes
//! are bounded, and a reply never waits: its room was taken with the call.

use super::Shard;
use crate::rt::{self, Class, InboxReceiver, InboxSender, OneReceiver, OneSender};
use crate::types::limits::CROSS_SHARD_CALLS_MAX;
use hashbrown::HashMap;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

/// Messages taken from the inbox before the executor looks at other tasks.
const DRAIN_MAX: usize = 256;

pub type Mail = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// The inboxes of all shards of a node.
pub struct Hub {
    inboxes: Vec<InboxSender<Mail>>,
}

impl Hub {
    pub fn new(shards: usize) -> (Arc<Hub>, Vec<InboxReceiver<Mail>>) {
        let (inboxes, receivers) = (0..shards).map(|_| rt::inbox()).unzip();
        (Arc::new(Hub { inboxes }), receivers)
    }

    pub fn shards(&self) -> usize {
        self.inboxes.len()
    }

    /// False where that shard is gone. For replies and rare messages: calls go through `Calls`.
    pub fn send(&self, shard: usize, mail: Mail) -> bool {
        self.inboxes[shard].send(mail).is_ok()
    }
}

/// Where a called shard sends its answer. Dropping it unsent tells the caller that none comes: the
/// called shard has stopped.
pub struct Reply<R> {
    hub: Arc<Hub>,
    to: usize,
    slot: u64,
    sent: bool,
    _result: std::marker::PhantomData<fn(R)>,
}

impl<R> Drop for Reply<R> {
    fn drop(&mut self) {
        if !self.sent {
            let slot = self.slot;
            let _gone = self
                .hub
                .send(self.to, Box::new(move |shard| shard.calls.abandon(slot)));
        }
    }
}

impl<R: Send + 'static> Reply<R> {
    pub fn send(mut self, value: R) {
        self.sent = true;
        let slot = self.slot;
        // The caller's shard may be gone while the node stops; nobody is waiting then.
        let _gone = self.hub.send(
            self.to,
            Box::new(move |shard| shard.calls.complete(slot, value)),
        );
    }
}

/// This shard's calls to others.
pub struct Calls {
    hub: Arc<Hub>,
    me: usize,
    next_slot: Cell<u64>,
    waiting: RefCell<HashMap<u64, Waiting>>,
    to: RefCell<Vec<Route>>,
    sent: Cell<u64>,
}

/// A call under way: the shard called, and a `OneSender<R>`.
type Waiting = (usize, Box<dyn Any>);

#[derive(Default)]
struct Route {
    under_way: u64,
    queued: VecDeque<Mail>,
}

impl Calls {
    pub fn new(hub: Arc<Hub>, me: usize) -> Calls {
        let to = (0..hub.shards()).map(|_| Route::default()).collect();
        Calls {
            hub,
            me,
            next_slot: Cell::new(0),
            waiting: RefCell::default(),
            to: RefCell::new(to),
            sent: Cell::new(0),
        }
    }

    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Calls handed to other shards since start.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Has `shard` run `f`; the receiver gives what `f` sends to its reply, None where that shard
    /// dropped it. Calls to one shard run in the order they were made.
    pub fn call<R: Send + 'static>(
        &self,
        shard: usize,
        f: impl FnOnce(&Rc<Shard>, Reply<R>) + Send + 'static,
    ) -> OneReceiver<R> {
        let (sender, receiver) = rt::oneshot::<R>();
        let slot = self.next_slot.get();
        self.next_slot.set(slot + 1);
        self.sent.set(self.sent.get() + 1);
        self.waiting
            .borrow_mut()
            .insert(slot, (shard, Box::new(sender)));
        let reply = Reply {
            hub: self.hub.clone(),
            to: self.me,
            slot,
            sent: false,
            _result: std::marker::PhantomData,
        };
        let mail: Mail = Box::new(move |remote| f(remote, reply));
        let mail = {
            let mut routes = self.to.borrow_mut();
            let route = &mut routes[shard];
            if route.under_way < CROSS_SHARD_CALLS_MAX && route.queued.is_empty() {
                route.under_way += 1;
                Some(mail)
            } else {
                // Bounded by the requests that this shard has memory for.
                route.queued.push_back(mail);
                None
            }
        };
        if let Some(mail) = mail {
            // Where the shard is gone, the dropped mail drops its reply, which says so.
            let _gone = self.hub.send(shard, mail);
        }
        receiver
    }

    fn complete<R: 'static>(&self, slot: u64, value: R) {
        let Some(sender) = self.finish(slot) else {
            return;
        };
        let sender: Box<OneSender<R>> = sender.downcast().expect("a reply has its call's type");
        // The caller may have given up; the slot is free either way.
        let _given_up = sender.send(value);
    }

    /// No answer comes: the receiver gives None.
    fn abandon(&self, slot: u64) {
        drop(self.finish(slot));
    }

    /// Takes a call off the books and lets the next one to that shard go.
    fn finish(&self, slot: u64) -> Option<Box<dyn Any>> {
        let (shard, sender) = self.waiting.borrow_mut().remove(&slot)?;
        let next = {
            let mut routes = self.to.borrow_mut();
            let route = &mut routes[shard];
            let next = route.queued.pop_front();
            route.under_way -= u64::from(next.is_none());
            next
        };
        if let Some(mail) = next {
            let _gone = self.hub.send(shard, mail);
        }
        Some(sender)
    }
}

impl Shard {
    /// Runs `f` on the shard `owner` and gives its result; None where that shard is stopping.
    pub async fn at<R, F, Fut>(self: &Rc<Self>, owner: usize, f: F) -> Option<R>
    where
        R: Send + 'static,
        F: FnOnce(Rc<Shard>) -> Fut + Send + 'static,
        Fut: Future<Output = R> + 'static,
    {
        if owner == self.index {
            return Some(f(self.clone()).await);
        }
        self.calls
            .call(owner, move |remote, reply| {
                let work = f(remote.clone());
                rt::spawn(Class::Network, async move { reply.send(work.await) });
            })
            .await
    }
}

/// Runs a shard's mail until every sender is gone.
pub async fn drain(shard: Rc<Shard>, mut inbox: InboxReceiver<Mail>) {
    let mut batch = Vec::with_capacity(DRAIN_MAX);
    while inbox.recv_many(&mut batch, DRAIN_MAX).await > 0 {
        for mail in batch.drain(..) {
            mail(&shard);
        }
        rt::yield_if_needed().await;
    }
}
