//! Owns the share sessions of one connection: which partitions a member of a share group reads through it, and the number
//! that its next request has to have.
//! Does not know records.
//! Invariant: a request that changes a session is the one that follows the last; with its connection a session ends, and
//! what the member has is anybody's again.

use crate::shard::ShardNet;
use crate::wire::ErrorCode;
use millrace_engine::rt::{self, Class};
use millrace_engine::types::PartitionId;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Opens a session, or closes it; all other numbers are for those between.
pub(super) const OPEN: i32 = 0;
pub(super) const CLOSE: i32 = -1;

/// Partitions of one session.
const PARTITIONS_MAX: usize = 10_000;

/// Group and member.
pub(super) type Who = (String, String);

#[derive(Debug)]
struct Session {
    /// Of the next request.
    epoch: i32,
    partitions: Vec<PartitionId>,
}

/// The sessions of one connection.
#[derive(Default)]
pub(crate) struct ShareSessions {
    of: RefCell<BTreeMap<Who, Session>>,
}

impl ShareSessions {
    /// Opens a session, in place of the one the member had.
    pub(super) fn open(
        &self,
        shard: &ShardNet,
        who: &Who,
        mut partitions: Vec<PartitionId>,
    ) -> Result<(), ErrorCode> {
        let mut sessions = self.of.borrow_mut();
        partitions.truncate(PARTITIONS_MAX);
        if !sessions.contains_key(who) {
            let image = shard.broker.image();
            let most = image.broker_config.group_share_max_share_sessions.max(1) as usize;
            if shard.share_sessions.get() >= most.div_ceil(shard.shards) {
                return Err(ErrorCode::ShareSessionLimitReached);
            }
            shard.share_sessions.set(shard.share_sessions.get() + 1);
        }
        let session = Session {
            epoch: 1,
            partitions,
        };
        sessions.insert(who.clone(), session);
        Ok(())
    }

    /// Goes on in a session; `change` gets its partitions.
    pub(super) fn go_on(
        &self,
        who: &Who,
        epoch: i32,
        change: impl FnOnce(&mut Vec<PartitionId>),
    ) -> Result<(), ErrorCode> {
        let mut sessions = self.of.borrow_mut();
        let session = sessions.get_mut(who);
        let session = session.ok_or(ErrorCode::ShareSessionNotFound)?;
        if session.epoch != epoch {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        session.epoch = epoch.checked_add(1).unwrap_or(1);
        change(&mut session.partitions);
        session.partitions.truncate(PARTITIONS_MAX);
        Ok(())
    }

    pub(super) fn partitions(&self, who: &Who) -> Vec<PartitionId> {
        let sessions = self.of.borrow();
        sessions
            .get(who)
            .map_or_else(Vec::new, |session| session.partitions.clone())
    }

    pub(super) fn has(&self, who: &Who) -> bool {
        self.of.borrow().contains_key(who)
    }

    /// Ends a session: what the member has is anybody's again.
    pub(super) async fn close(&self, shard: &ShardNet, who: &Who, also: Vec<PartitionId>) {
        let session = self.of.borrow_mut().remove(who);
        let Some(Session { mut partitions, .. }) = session else {
            return;
        };
        shard.share_sessions.set(shard.share_sessions.get() - 1);
        partitions.extend(also);
        partitions.sort_unstable();
        partitions.dedup();
        shard.broker.share_release(&who.0, &who.1, partitions).await;
    }

    /// The connection has ended.
    pub(crate) fn end(&self, shard: &Rc<ShardNet>) {
        for ((group, member), session) in std::mem::take(&mut *self.of.borrow_mut()) {
            shard.share_sessions.set(shard.share_sessions.get() - 1);
            let broker = shard.broker.clone();
            rt::spawn(Class::Network, async move {
                let partitions = session.partitions;
                broker.share_release(&group, &member, partitions).await;
            });
        }
    }
}
