//! Owns the memory of what fetches read, from before the read until the client has taken the answer.
//! Does not know connections, nor what is read.
//! Invariant: reads that are under way together never ask for more than the budget and half of it again; beyond that they
//! wait, so that slow readers cost the others time and not the process its memory. Small ones have half a budget of their
//! own, so that whoever is at the end of a log need not wait for those who read a lot and take nothing.

use crate::rt::{self, Mono, Notify};
use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

/// What may be taken, in bytes, and what is.
pub struct ResponseMemory {
    max: u64,
    used: Cell<u64>,
    /// What small reads hold, also counted in `used`.
    small: Cell<u64>,
    freed: Notify,
    waiting: Cell<usize>,
    /// Somebody begins to wait.
    short: Notify,
}

/// Bytes of a response in the ledger of its shard; dropping it gives them back.
pub struct ResponseBytes {
    memory: Rc<ResponseMemory>,
    bytes: u64,
    small: bool,
}

impl Drop for ResponseBytes {
    fn drop(&mut self) {
        if self.small {
            self.memory.small.set(self.memory.small.get() - self.bytes);
        }
        self.memory.used.set(self.memory.used.get() - self.bytes);
        self.memory.freed.notify_all();
    }
}

impl ResponseBytes {
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// The same, for what there is now: less, or more where the first batch was larger than expected.
    pub fn resized(mut self, bytes: usize) -> ResponseBytes {
        assert!(!self.small, "a small read is held by what it found");
        let used = self.memory.used.get() - self.bytes;
        self.bytes = bytes as u64;
        self.memory.used.set(used + self.bytes);
        self.memory.freed.notify_all();
        self
    }
}

impl ResponseMemory {
    pub fn new(max: u64) -> Rc<ResponseMemory> {
        Rc::new(ResponseMemory {
            max,
            used: Cell::new(0),
            small: Cell::new(0),
            freed: Notify::new(),
            waiting: Cell::new(0),
            short: Notify::new(),
        })
    }

    /// Resolves while somebody waits for memory: whoever can make slow readers give some back is to do so.
    pub async fn shortage(&self) {
        loop {
            let short = self.short.notified();
            if self.waiting.get() > 0 {
                return;
            }
            short.await;
        }
    }

    /// Takes memory for a small read, waiting for it until the deadline; None where small reads hold all that is theirs.
    pub async fn take_small(
        self: &Rc<Self>,
        bytes: usize,
        deadline: Mono,
    ) -> Option<ResponseBytes> {
        loop {
            let freed = self.freed.notified();
            let small = self.small.get() + bytes as u64;
            if small <= self.max / 2 {
                self.small.set(small);
                let mut held = self.hold(bytes);
                held.small = true;
                return Some(held);
            }
            self.wait(freed, deadline).await?;
        }
    }

    /// Waits for something to be given back; None once the deadline has passed.
    async fn wait(&self, freed: impl Future<Output = ()>, deadline: Mono) -> Option<()> {
        let left = deadline - rt::now();
        let _waits = Waits::begin(self);
        if left.is_zero() {
            return None;
        }
        rt::timeout(left, freed).await
    }

    pub fn used(&self) -> u64 {
        self.used.get()
    }

    /// What is left of the budget.
    pub fn left(&self) -> usize {
        self.max.saturating_sub(self.used.get()) as usize
    }

    /// Counts what is there already. Never waits.
    pub fn hold(self: &Rc<Self>, bytes: usize) -> ResponseBytes {
        let bytes = bytes as u64;
        self.used.set(self.used.get() + bytes);
        ResponseBytes {
            memory: self.clone(),
            bytes,
            small: false,
        }
    }

    /// Takes memory for a read of up to `wanted` bytes that makes do with `needed`; waits for it until the
    /// deadline. None where there was none.
    pub async fn take(
        self: &Rc<Self>,
        wanted: usize,
        needed: usize,
        deadline: Mono,
    ) -> Option<ResponseBytes> {
        loop {
            let freed = self.freed.notified();
            let bytes = wanted.min(self.left().max(needed));
            let fits = self.used.get() + bytes as u64 <= self.max + self.max / 2;
            // One alone may be larger than everything.
            if fits || self.used.get() == 0 {
                return Some(self.hold(bytes));
            }
            self.wait(freed, deadline).await?;
        }
    }
}

/// One that waits, also where it gives up in the middle.
struct Waits<'a>(&'a ResponseMemory);

impl Waits<'_> {
    fn begin(memory: &ResponseMemory) -> Waits<'_> {
        memory.waiting.set(memory.waiting.get() + 1);
        memory.short.notify_all();
        Waits(memory)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::sim::{Sim, SimConfig};
    use std::time::Duration;

    #[test]
    fn what_is_over_the_budget_waits_until_something_is_given_back() {
        Sim::new(1, SimConfig::default()).block_on(async {
            let memory = ResponseMemory::new(100);
            let soon = || rt::now() + Duration::from_secs(1);
            let most = memory.take(90, 10, soon()).await.unwrap();
            let rest = memory.take(90, 10, soon()).await.unwrap();
            assert_eq!((most.bytes(), rest.bytes(), memory.left()), (90, 10, 0));
            let over = memory.take(90, 50, soon()).await.unwrap();
            assert_eq!((over.bytes(), memory.used()), (50, 150));
            let small = memory.take_small(50, soon()).await.unwrap();
            assert!(memory.take_small(1, soon()).await.is_none());
            let next = {
                let memory = memory.clone();
                rt::spawn_joined(rt::Class::Network, async move {
                    let next = memory.take_small(1, rt::now() + Duration::from_secs(1));
                    next.await.map(|taken| taken.bytes())
                })
            };
            rt::yield_now().await;
            drop(small);
            assert_eq!(next.await, Some(1));
            assert!(rt::timeout(Duration::from_secs(1), memory.shortage())
                .await
                .is_none());
            let begun = rt::now();
            assert!(memory.take(90, 10, soon()).await.is_none());
            assert_eq!(rt::now().since(begun), Duration::from_secs(1));
            let waiter = {
                let (memory, deadline) = (memory.clone(), soon());
                rt::spawn_joined(rt::Class::Network, async move {
                    memory
                        .take(90, 10, deadline)
                        .await
                        .map(|taken| taken.bytes())
                })
            };
            memory.shortage().await;
            let most = most.resized(80);
            assert_eq!(waiter.await, Some(10));
            drop((most, rest, over));
            assert_eq!(memory.used(), 0);
            let alone = memory.take(1_000, 1_000, soon()).await.unwrap();
            assert_eq!(alone.bytes(), 1_000);
        });
    }
}
