//! Tests of tasks, timers, blocking work and inboxes, on both runtimes.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use super::super::*;
use super::both;

const MS: Duration = Duration::from_millis(1);

#[test]
fn tasks_of_every_class_run() {
    both("classes", |_| async {
        let sum = Rc::new(Cell::new(0));
        let mut joined = Vec::new();
        for (i, class) in task::Class::ALL.into_iter().enumerate() {
            let sum = sum.clone();
            joined.push(spawn_joined(class, async move {
                yield_now().await;
                yield_if_needed().await;
                sum.set(sum.get() + i);
                i
            }));
        }
        for (i, j) in joined.into_iter().enumerate() {
            assert_eq!(j.await, i);
        }
        assert_eq!(sum.get(), 6);
    });
}

#[test]
fn sleeps_end_in_order_and_not_early() {
    both("sleeps", |_| async {
        let start = now();
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut joined = Vec::new();
        for ms in [40u32, 1, 20] {
            let order = order.clone();
            joined.push(spawn_joined(Class::Background, async move {
                sleep(MS * ms).await;
                assert!(now() - start >= MS * ms);
                order.borrow_mut().push(ms);
            }));
        }
        for j in joined {
            j.await;
        }
        // On a busy machine a timer may be late, and then two of them end in one round, in any order.
        order.borrow_mut().sort();
        assert_eq!(*order.borrow(), [1, 20, 40]);
        sleep_until(start).await;
        let then = now() + MS;
        sleep_until(then).await;
        assert!(now() >= then);
    });
}

#[test]
fn timeouts() {
    both("timeouts", |_| async {
        assert_eq!(timeout(MS, pending::<()>()).await, None);
        assert_eq!(timeout(Duration::ZERO, async { 3 }).await, Some(3));
        let late = timeout(Duration::from_secs(3600), async {
            sleep(MS).await;
            4
        });
        assert_eq!(late.await, Some(4));
    });
}

#[test]
fn blocking_work_comes_back() {
    both("blocking", |_| async {
        let v = String::from("abc");
        assert_eq!(blocking(move || v.len()).await, 3);
        let results: Vec<_> = (0..20)
            .map(|i| spawn_joined(Class::Storage, blocking(move || i * i)))
            .collect();
        for (i, r) in results.into_iter().enumerate() {
            assert_eq!(r.await, i * i);
        }
    });
}

#[test]
fn an_inbox_keeps_order_and_reports_the_end() {
    both("inbox", |_| async {
        let (tx, mut rx) = inbox();
        let tx2 = tx.clone();
        spawn(Class::Network, async move {
            for i in 0..100 {
                tx.send(i).unwrap();
                if i % 7 == 0 {
                    yield_now().await;
                }
            }
        });
        let mut got = Vec::new();
        while got.len() < 100 {
            let n = rx.recv_many(&mut got, 9).await;
            assert!((1..=9).contains(&n));
        }
        assert_eq!(got, (0..100).collect::<Vec<_>>());
        assert!(timeout(MS, rx.recv_many(&mut got, 1)).await.is_none());
        drop(tx2);
        assert_eq!(rx.recv_many(&mut got, 1).await, 0);
        let (tx, rx) = inbox();
        drop(rx);
        assert!(tx.is_closed());
        assert_eq!(tx.send(7), Err(7));
    });
}

#[test]
fn clocks_and_chance() {
    both("clocks", |_| async {
        let a = now();
        sleep(MS).await;
        let b = now();
        assert!(b > a && a - b == Duration::ZERO && a + (b - a) == b);
        assert!(wall_ms() > 1_600_000_000_000);
        assert_ne!(random_u64(), random_u64());
        assert_eq!(Mono::MAX + MS, Mono::MAX);
    });
}

#[test]
fn clocks_work_on_any_thread() {
    assert!(now() > Mono(0));
    assert!(wall_ms() > 1_600_000_000_000);
    assert_ne!(random_u64(), random_u64());
}
