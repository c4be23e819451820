//! Owns a member of the newer consumer protocol: one heartbeat that joins, tells what it has and hears what it should have.
//! Does not know when it is told to go, nor how the board judges.
//! Invariant: what is to be given up is off the board before the coordinator is told so.

use super::member::{Ended, Member, Order};
use crate::client::Client;
use crate::error::PerfError;
use millrace_net::wire::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use millrace_net::wire::{ErrorCode, Str};
use std::time::Duration;
use uuid::Uuid;

const JOIN_EPOCH: i32 = 0;
const LEAVE_EPOCH: i32 = -1;
/// How long a member may take to give up what it is asked to.
const REBALANCE_TIMEOUT_MS: i32 = 30_000;
/// Before asking a coordinator again that is not ready.
const PAUSE: Duration = Duration::from_millis(100);

struct Place {
    member_id: Str,
    epoch: i32,
    owned: Vec<usize>,
    /// The coordinator does not know yet what this member has now.
    to_tell: bool,
    topic_id: Uuid,
}

pub fn run(member: Member) -> Result<Ended, PerfError> {
    let mut client = member.connect()?;
    let mut place = Place {
        member_id: format!("{}-{}", member.group, member.number).into(),
        epoch: JOIN_EPOCH,
        owned: Vec::new(),
        to_tell: true,
        topic_id: topic_id(&member, &mut client)?,
    };
    let mut rest = Duration::ZERO;
    loop {
        match member.rest(rest) {
            Some(Order::Leave) => {
                place.epoch = LEAVE_EPOCH;
                member.board.own(member.number, &[]);
                let answer = member.ask(&mut client, &beat(&member, &place))?;
                return match answer.error_code == ErrorCode::None.code() {
                    true => Ok(Ended),
                    false => Err(refused("leaving", answer.error_code)),
                };
            }
            Some(Order::Vanish) => return Ok(Ended),
            None => {}
        }
        let answer = member.ask(&mut client, &beat(&member, &place))?;
        rest = match answer.error_code == ErrorCode::None.code() {
            true => {
                let interval = answer.heartbeat_interval_ms.max(0) as u64;
                take(&member, &mut place, answer);
                match place.to_tell {
                    true => Duration::ZERO,
                    false => Duration::from_millis(interval),
                }
            }
            false => {
                starts_over(&member, &mut place, answer.error_code)?;
                PAUSE
            }
        };
    }
}

fn topic_id(member: &Member, client: &mut Client) -> Result<Uuid, PerfError> {
    let answer = client.metadata(&member.topic)?;
    let topic = answer.topics.first();
    topic
        .map(|topic| topic.topic_id)
        .ok_or_else(|| PerfError::Usage(format!("topic {} is gone", member.topic)))
}

fn beat(member: &Member, place: &Place) -> ConsumerGroupHeartbeatRequest {
    let joins = place.epoch == JOIN_EPOCH;
    let all = || TopicPartitions {
        topic_id: place.topic_id,
        partitions: place.owned.iter().map(|p| *p as i32).collect(),
    };
    let told = || match place.owned.is_empty() {
        true => Vec::new(),
        false => vec![all()],
    };
    ConsumerGroupHeartbeatRequest {
        group_id: member.group.clone().into(),
        member_id: place.member_id.clone(),
        member_epoch: place.epoch,
        rebalance_timeout_ms: if joins { REBALANCE_TIMEOUT_MS } else { -1 },
        subscribed_topic_names: joins.then(|| vec![member.topic.clone().into()]),
        topic_partitions: (joins || place.to_tell).then(told),
        ..Default::default()
    }
}

/// Does what the coordinator asks: gives up what it should not have, takes what it may.
fn take(member: &Member, place: &mut Place, answer: ConsumerGroupHeartbeatResponse) {
    place.epoch = answer.member_epoch;
    place.to_tell = false;
    let Some(assignment) = answer.assignment else {
        return;
    };
    let given = assignment.topic_partitions.into_iter();
    let given = given.filter(|topic| topic.topic_id == place.topic_id);
    let mut target: Vec<usize> = given
        .flat_map(|topic| topic.partitions)
        .filter_map(|p| usize::try_from(p).ok())
        .collect();
    target.sort_unstable();
    if target != place.owned {
        member.board.own(member.number, &target);
        place.owned = target;
        place.to_tell = true;
    }
}

/// After these answers a member goes on, after some as a new one; any other is a failure.
fn starts_over(member: &Member, place: &mut Place, code: i16) -> Result<(), PerfError> {
    let is = |these: &[ErrorCode]| these.iter().any(|one| one.code() == code);
    if is(&[ErrorCode::UnknownMemberId, ErrorCode::FencedMemberEpoch]) {
        member.board.own(member.number, &[]);
        place.owned.clear();
        place.epoch = JOIN_EPOCH;
        place.to_tell = true;
        return Ok(());
    }
    let passing = [
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotCoordinator,
    ];
    match is(&passing) {
        true => Ok(()),
        false => Err(refused("heartbeat", code)),
    }
}

fn refused(what: &str, code: i16) -> PerfError {
    PerfError::Refused {
        what: what.into(),
        code,
    }
}
