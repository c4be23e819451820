//! Tests of oneshot, Notify and Semaphore, on both runtimes.

use std::cell::RefCell;
use std::rc::Rc;

use super::super::{oneshot, spawn, spawn_joined, yield_now, Class, Notify, Semaphore};
use super::both;

#[test]
fn oneshots() {
    both("oneshots", |_| async {
        let (tx, rx) = oneshot();
        spawn(Class::Network, async move {
            yield_now().await;
            tx.send(5).unwrap();
        });
        assert_eq!(rx.await, Some(5));

        let (tx, rx) = oneshot::<u8>();
        drop(tx);
        assert_eq!(rx.await, None);

        let (tx, rx) = oneshot();
        drop(rx);
        assert!(tx.is_closed());
        assert_eq!(tx.send(3), Err(3));

        let (tx, mut rx) = oneshot();
        assert_eq!(rx.try_recv(), None);
        tx.send(4).unwrap();
        assert_eq!(rx.try_recv(), Some(4));
        assert_eq!(rx.await, None);
    });
}

#[test]
fn notify_wakes_exactly_those_who_wait() {
    both("notify", |_| async {
        let n = Notify::new();
        n.notify_all();
        let before = n.notified();
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let n = n.clone();
                spawn_joined(Class::Network, async move { n.notified().await })
            })
            .collect();
        while n.waiting() < 10 {
            yield_now().await;
        }
        n.notify_all();
        for t in tasks {
            t.await;
        }
        // Created before the notification, first polled after it.
        before.await;
        let late = n.notified();
        let polled = futures_lite::future::poll_once(late).await;
        assert_eq!(polled, None, "an old notification is not remembered");
        assert_eq!(n.waiting(), 0, "a dropped waiter leaves");
    });
}

#[test]
fn semaphore_serves_in_order() {
    both("semaphore_order", |_| async {
        let s = Semaphore::new(10);
        let mut all = s.acquire(10).await;
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        // No two fit at once, so the order of service is the order of the log.
        for (i, n) in [8u64, 3, 9, 10].into_iter().enumerate() {
            let (s2, order) = (s.clone(), order.clone());
            tasks.push(spawn_joined(Class::Network, async move {
                let p = s2.acquire(n).await;
                order.borrow_mut().push(i);
                yield_now().await;
                drop(p);
            }));
            while s.waiting() <= i {
                yield_now().await;
            }
        }
        assert!(s.try_acquire(1).is_none(), "nobody jumps the queue");
        all.shrink(5);
        assert_eq!(s.available(), 5, "the first needs 8, so all wait");
        let part = all.split(2);
        drop(all);
        drop(part);
        for t in tasks {
            t.await;
        }
        assert_eq!(*order.borrow(), [0, 1, 2, 3]);
        assert_eq!(s.available(), 10);
        assert_eq!(s.try_acquire(10).unwrap().count(), 10);
    });
}

#[test]
fn a_cancelled_acquire_gives_back_and_lets_others_through() {
    both("semaphore_cancel", |_| async {
        let s = Semaphore::new(4);
        let held = s.acquire(3).await;
        let mut big = Box::pin(s.acquire(4));
        let mut small = Box::pin(s.acquire(1));
        assert!(futures_lite::future::poll_once(&mut big).await.is_none());
        assert!(futures_lite::future::poll_once(&mut small).await.is_none());
        drop(big);
        let p = small.await;
        assert_eq!(p.count(), 1);

        // Granted, then dropped without having been polled again.
        let mut third = Box::pin(s.acquire(2));
        assert!(futures_lite::future::poll_once(&mut third).await.is_none());
        drop(held);
        drop(p);
        assert_eq!(s.available(), 2);
        drop(third);
        assert_eq!(s.available(), 4);
    });
}

#[test]
#[should_panic(expected = "11 permits asked of 10")]
fn more_than_everything_is_a_bug() {
    drop(Semaphore::new(10).acquire(11));
}
