//! Owns who believes to have which partition, and since when all is shared out.
//! Does not know protocols.
//! Invariant: a partition has one owner at most; who takes what another one has is counted, not hidden.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

/// The end of a phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shared {
    pub at: Instant,
    pub unowned_partition_seconds: f64,
    pub requests: u64,
}

#[derive(Debug)]
struct State {
    /// By partition: the member that has it.
    owners: Vec<Option<usize>>,
    /// Living members and how many partitions each has.
    members: BTreeMap<usize, usize>,
    overlaps: u64,
    requests: u64,
    unowned: usize,
    unowned_partition_seconds: f64,
    changed: Instant,
}

/// What all members write on.
#[derive(Debug)]
pub struct Board {
    state: Mutex<State>,
    news: Condvar,
}

impl Board {
    pub fn new(partitions: usize) -> Board {
        Board {
            state: Mutex::new(State {
                owners: vec![None; partitions],
                members: BTreeMap::new(),
                overlaps: 0,
                requests: 0,
                unowned: partitions,
                unowned_partition_seconds: 0.0,
                changed: Instant::now(),
            }),
            news: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A member that panicked is reported when it is joined.
        self.state
            .lock()
            .unwrap_or_else(|broken| broken.into_inner())
    }

    /// A phase begins.
    pub fn begin(&self) {
        let mut state = self.state();
        state.advance();
        state.unowned_partition_seconds = 0.0;
        state.requests = 0;
    }

    /// A member lives and has nothing yet.
    pub fn arrive(&self, member: usize) {
        self.state().members.insert(member, 0);
    }

    /// A member has exactly these partitions from now on.
    pub fn own(&self, member: usize, partitions: &[usize]) {
        let mut state = self.state();
        state.advance();
        state.release(member, partitions);
        let mut count = 0;
        for &partition in partitions {
            let Some(owner) = state.owners.get(partition).copied() else {
                continue;
            };
            match owner {
                Some(other) if other != member => {
                    state.overlaps += 1;
                    if let Some(has) = state.members.get_mut(&other) {
                        *has -= 1;
                    }
                }
                Some(_) => {}
                None => state.unowned -= 1,
            }
            state.owners[partition] = Some(member);
            count += 1;
        }
        if let Some(has) = state.members.get_mut(&member) {
            *has = count;
        }
        self.news.notify_all();
    }

    /// A member is no more.
    pub fn depart(&self, member: usize) {
        let mut state = self.state();
        state.advance();
        state.release(member, &[]);
        state.members.remove(&member);
        self.news.notify_all();
    }

    pub fn asked(&self) {
        self.state().requests += 1;
    }

    pub fn overlaps(&self) -> u64 {
        self.state().overlaps
    }

    /// Waits until `members` live and each partition has one of them, evenly; None at the deadline.
    pub fn wait_shared(&self, members: usize, deadline: Instant) -> Option<Shared> {
        let mut state = self.state();
        while !state.is_shared(members) {
            let left = deadline.checked_duration_since(Instant::now())?;
            let (woken, _) = self
                .news
                .wait_timeout(state, left)
                .unwrap_or_else(|broken| broken.into_inner());
            state = woken;
        }
        Some(Shared {
            at: state.changed,
            unowned_partition_seconds: state.unowned_partition_seconds,
            requests: state.requests,
        })
    }

    /// How far it has come, for who waits in vain.
    pub fn describe(&self, members: usize) -> String {
        let state = self.state();
        let with = state.members.values().filter(|has| **has > 0).count();
        format!(
            "{} partitions have no owner, and {with} of {members} members have any",
            state.unowned
        )
    }
}

impl State {
    fn advance(&mut self) {
        let now = Instant::now();
        let seconds = now.duration_since(self.changed).as_secs_f64();
        self.unowned_partition_seconds += seconds * self.unowned as f64;
        self.changed = now;
    }

    /// Takes from a member all but `kept`.
    fn release(&mut self, member: usize, kept: &[usize]) {
        let had = self.members.get(&member).copied().unwrap_or(0);
        if had == 0 {
            return;
        }
        for partition in 0..self.owners.len() {
            if self.owners[partition] == Some(member) && !kept.contains(&partition) {
                self.owners[partition] = None;
                self.unowned += 1;
            }
        }
        self.members.insert(member, kept.len().min(had));
    }

    fn is_shared(&self, members: usize) -> bool {
        let least = self.members.values().min().copied().unwrap_or(0);
        let most = self.members.values().max().copied().unwrap_or(0);
        self.members.len() == members && self.unowned == 0 && most - least <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_shared(board: &Board, members: usize) -> bool {
        board.wait_shared(members, Instant::now()).is_some()
    }

    #[test]
    fn all_is_shared_when_each_partition_has_one_owner_and_nobody_much_more() {
        let board = Board::new(5);
        board.arrive(0);
        board.own(0, &[0, 1, 2, 3, 4]);
        assert!(is_shared(&board, 1));
        assert!(!is_shared(&board, 2), "somebody is missing");
        board.arrive(1);
        assert!(!is_shared(&board, 2), "one has all");
        board.own(0, &[0, 1, 2]);
        assert!(!is_shared(&board, 2), "two have no owner");
        board.own(1, &[3, 4]);
        assert!(is_shared(&board, 2));
        board.depart(0);
        assert!(!is_shared(&board, 1));
        assert_eq!(board.overlaps(), 0);
    }

    #[test]
    fn who_takes_what_another_has_is_counted() {
        let board = Board::new(2);
        board.arrive(0);
        board.arrive(1);
        board.own(0, &[0, 1]);
        board.own(1, &[1]);
        assert_eq!(board.overlaps(), 1);
        assert!(is_shared(&board, 2));
    }

    #[test]
    fn partitions_beyond_the_topic_are_nobodys() {
        let board = Board::new(1);
        board.arrive(0);
        board.own(0, &[7]);
        assert!(!is_shared(&board, 1));
    }
}
