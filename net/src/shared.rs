//! Owns what the shards of one process share about connections: how many each has, per address, and the mail
//! that carries a connection from one shard to another.
//! Does not know requests.
//! Invariant: every open connection holds exactly one ticket, which counts for exactly one shard.

use crate::config::ConnectionCaps;
use crate::conn::Carried;
use crate::metrics::{ShardMetrics, ShardSnapshot};
use crate::placement;
use millrace_engine::rt;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connection counts and mailboxes of all shards. One per process.
pub struct NetShared {
    counts: Mutex<Counts>,
    shards: Vec<ShardSlot>,
}

struct Counts {
    per_shard: Vec<usize>,
    per_address: HashMap<IpAddr, usize>,
    total: usize,
}

struct ShardSlot {
    metrics: Arc<ShardMetrics>,
    mail: rt::InboxSender<Handoff>,
    /// Taken by the shard when it starts to serve.
    mailbox: Mutex<Option<rt::InboxReceiver<Handoff>>>,
}

/// What kind of listener a connection came in by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// The node's: the connection lives wherever it is best.
    Node,
    /// A shard's own: the client has chosen the shard, and the connection stays there.
    Core,
}

/// A connection on its way to another shard.
pub(crate) struct Handoff {
    pub(crate) stream: rt::DetachedStream,
    pub(crate) peer: SocketAddr,
    pub(crate) ticket: Ticket,
    /// What an already used connection takes along.
    pub(crate) carried: Option<Box<Carried>>,
}

/// Why a new connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the broker has its maximum of {0} connections")]
    Total(usize),
    #[error("the address has its maximum of {0} connections")]
    Address(usize),
}

impl NetShared {
    /// For a process with `shards` shards.
    pub fn new(shards: usize) -> Arc<NetShared> {
        assert!(shards > 0);
        let slots = (0..shards)
            .map(|_| {
                let (mail, mailbox) = rt::inbox();
                ShardSlot {
                    metrics: Arc::default(),
                    mail,
                    mailbox: Mutex::new(Some(mailbox)),
                }
            })
            .collect();
        let counts = Counts {
            per_shard: vec![0; shards],
            per_address: HashMap::new(),
            total: 0,
        };
        Arc::new(NetShared {
            counts: Mutex::new(counts),
            shards: slots,
        })
    }

    /// What each shard counted, by shard number.
    pub fn snapshot(&self) -> Vec<ShardSnapshot> {
        self.shards
            .iter()
            .map(|slot| slot.metrics.snapshot())
            .collect()
    }

    /// Open connections of each shard now.
    pub fn connections(&self) -> Vec<usize> {
        self.counts().per_shard.clone()
    }

    pub(crate) fn metrics(&self, shard: usize) -> Arc<ShardMetrics> {
        self.shards[shard].metrics.clone()
    }

    pub(crate) fn take_mailbox(&self, shard: usize) -> rt::InboxReceiver<Handoff> {
        let mut mailbox = self.shards[shard]
            .mailbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        mailbox.take().expect("a shard serves once")
    }

    /// Sends a connection to the shard of its ticket. Mail is bounded by the number of connections. A shard that has
    /// stopped drops it, which closes the connection.
    pub(crate) fn send(&self, handoff: Handoff) {
        let shard = handoff.ticket.shard;
        if let Err(handoff) = self.shards[shard].mail.send(handoff) {
            tracing::debug!(peer = %handoff.peer, shard, "connection closed: its shard has stopped");
        }
    }

    /// Counts a new connection: for the shard that accepts it, or by the node's door for the one that has the fewest
    /// (`accepting`, among equals).
    pub(crate) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        accepting: usize,
        door: Door,
        caps: ConnectionCaps,
    ) -> Result<Ticket, Refused> {
        let mut counts = self.counts();
        if counts.total >= caps.total {
            return Err(Refused::Total(caps.total));
        }
        let of_address = counts.per_address.get(&address).copied().unwrap_or(0);
        if of_address >= caps.per_address {
            return Err(Refused::Address(caps.per_address));
        }
        let shard = match door {
            Door::Core => accepting,
            Door::Node => (0..counts.per_shard.len())
                .min_by_key(|shard| (counts.per_shard[*shard], *shard != accepting))
                .expect("there is a shard"),
        };
        counts.total += 1;
        counts.per_shard[shard] += 1;
        *counts.per_address.entry(address).or_insert(0) += 1;
        drop(counts);
        Ok(Ticket {
            shared: self.clone(),
            address,
            shard,
            door,
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing between taking and releasing this lock can panic half way through a change.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection in the counts; dropping it takes the connection out.
pub(crate) struct Ticket {
    shared: Arc<NetShared>,
    address: IpAddr,
    shard: usize,
    door: Door,
}

impl Ticket {
    pub(crate) fn shard(&self) -> usize {
        self.shard
    }

    pub(crate) fn door(&self) -> Door {
        self.door
    }

    /// Counts the connection for `to` from now on, unless that would leave the shards unevenly loaded.
    pub(crate) fn move_to(&mut self, to: usize) -> bool {
        assert_eq!(self.door, Door::Node, "a client's choice stands");
        let mut counts = self.shared.counts();
        let from = self.shard;
        if !placement::keeps_balance(counts.per_shard[from], counts.per_shard[to], counts.total) {
            return false;
        }
        counts.per_shard[from] -= 1;
        counts.per_shard[to] += 1;
        drop(counts);
        self.shard = to;
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.shared.counts();
        counts.total -= 1;
        counts.per_shard[self.shard] -= 1;
        if let Some(count) = counts.per_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.per_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: ConnectionCaps = ConnectionCaps {
        total: 100,
        per_address: 100,
    };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn connections_spread_evenly_whoever_accepts_them() {
        let shared = NetShared::new(4);
        let mut tickets = Vec::new();
        for n in 0..8 {
            tickets.push(shared.admit(address(1), 2, Door::Node, MANY).unwrap());
            let counts = shared.connections();
            assert!(
                counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1,
                "after {n}: {counts:?}"
            );
        }
        tickets.retain(|t| t.shard() != 3);
        assert_eq!(shared.connections(), [2, 2, 2, 0]);
        assert_eq!(
            shared
                .admit(address(1), 0, Door::Node, MANY)
                .unwrap()
                .shard(),
            3
        );
        drop(tickets);
        assert_eq!(shared.connections(), [0; 4]);
        assert!(shared.counts().per_address.is_empty());
    }

    #[test]
    fn who_comes_by_a_shards_own_door_stays_there_and_counts() {
        let shared = NetShared::new(2);
        let own = |shard| shared.admit(address(1), shard, Door::Core, MANY).unwrap();
        let tickets = [own(1), own(1), own(1)];
        assert_eq!(shared.connections(), [0, 3]);
        let other = shared.admit(address(1), 1, Door::Node, MANY).unwrap();
        assert_eq!((other.shard(), tickets[0].door()), (0, Door::Core));
    }

    #[test]
    fn caps_hold_per_address_and_in_all_and_free_up_again() {
        let shared = NetShared::new(1);
        let caps = ConnectionCaps {
            total: 3,
            per_address: 2,
        };
        let a = shared.admit(address(1), 0, Door::Node, caps).unwrap();
        let _b = shared.admit(address(1), 0, Door::Node, caps).unwrap();
        assert_eq!(
            shared.admit(address(1), 0, Door::Node, caps).err(),
            Some(Refused::Address(2))
        );
        let _c = shared.admit(address(2), 0, Door::Node, caps).unwrap();
        assert_eq!(
            shared.admit(address(3), 0, Door::Node, caps).err(),
            Some(Refused::Total(3))
        );
        drop(a);
        assert!(shared.admit(address(1), 0, Door::Node, caps).is_ok());
    }

    #[test]
    fn a_move_shifts_the_count_unless_it_would_unbalance() {
        let shared = NetShared::new(2);
        let mut tickets: Vec<Ticket> = (0..4)
            .map(|_| shared.admit(address(1), 0, Door::Node, MANY).unwrap())
            .collect();
        let mut on_zero: Vec<&mut Ticket> = tickets.iter_mut().filter(|t| t.shard == 0).collect();
        assert!(on_zero[0].move_to(1));
        assert_eq!(shared.connections(), [1, 3]);
        assert!(!on_zero[1].move_to(1));
        assert_eq!(shared.connections(), [1, 3]);
    }
}
