//! Owns a member of the classic protocol: joining, sharing out as the leader, heartbeats.
//! Does not know when it is told to go, nor how the board judges.
//! Invariant: a member gives up its partitions before it joins again, as an eager consumer does.

use super::member::{Ended, Member, Order};
use crate::client::Client;
use crate::error::PerfError;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use millrace_net::wire::heartbeat::HeartbeatRequest;
use millrace_net::wire::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use millrace_net::wire::leave_group::{LeaveGroupRequest, MemberIdentity};
use millrace_net::wire::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use millrace_net::wire::{ErrorCode, Str};
use std::time::Duration;

const ASSIGNOR: Str = Str::from_static("roundrobin");
const PROTOCOL_TYPE: Str = Str::from_static("consumer");
/// How long the others wait for a member that has to join again.
const REBALANCE_TIMEOUT_MS: i32 = 30_000;
/// Before asking a coordinator again that is not ready.
const PAUSE: Duration = Duration::from_millis(100);

/// A membership: empty and -1 before the first.
#[derive(Default)]
struct Place {
    member_id: Str,
    generation: i32,
}

pub fn run(member: Member) -> Result<Ended, PerfError> {
    let mut client = member.connect()?;
    let mut place = Place::default();
    loop {
        member.board.own(member.number, &[]);
        let Some(mine) = become_member(&member, &mut client, &mut place)? else {
            if member.rest(PAUSE).is_some() {
                return Ok(Ended);
            }
            continue;
        };
        member.board.own(member.number, &mine);
        loop {
            match member.rest(member.heartbeat_interval) {
                Some(Order::Leave) => return leave(&member, &mut client, &place),
                Some(Order::Vanish) => return Ok(Ended),
                None => {}
            }
            let beat = HeartbeatRequest {
                group_id: member.group.clone().into(),
                generation_id: place.generation,
                member_id: place.member_id.clone(),
                group_instance_id: None,
            };
            let answer = member.ask(&mut client, &beat)?;
            if answer.error_code == ErrorCode::None.code() {
                continue;
            }
            starts_over(&mut place, "heartbeat", answer.error_code)?;
            break;
        }
    }
}

/// Joins and gets its part; None where it has to begin again.
fn become_member(
    member: &Member,
    client: &mut Client,
    place: &mut Place,
) -> Result<Option<Vec<usize>>, PerfError> {
    let joined = member.ask(client, &join(member, place))?;
    if joined.error_code == ErrorCode::MemberIdRequired.code() {
        place.member_id = joined.member_id;
        return become_member(member, client, place);
    }
    if joined.error_code != ErrorCode::None.code() {
        starts_over(place, "join", joined.error_code)?;
        return Ok(None);
    }
    place.member_id = joined.member_id.clone();
    place.generation = joined.generation_id;
    let sync = SyncGroupRequest {
        group_id: member.group.clone().into(),
        generation_id: place.generation,
        member_id: place.member_id.clone(),
        group_instance_id: None,
        protocol_type: Some(PROTOCOL_TYPE),
        protocol_name: Some(ASSIGNOR),
        assignments: shared_out(member, &joined),
    };
    let synced = member.ask(client, &sync)?;
    if synced.error_code != ErrorCode::None.code() {
        starts_over(place, "sync", synced.error_code)?;
        return Ok(None);
    }
    Ok(Some(read_assignment(synced.assignment)?))
}

fn join(member: &Member, place: &Place) -> JoinGroupRequest {
    let mut subscription = BytesMut::new();
    subscription.put_i16(0);
    subscription.put_i32(1);
    put_text(&mut subscription, &member.topic);
    subscription.put_i32(-1);
    JoinGroupRequest {
        group_id: member.group.clone().into(),
        session_timeout_ms: member.session_timeout_ms,
        rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
        member_id: place.member_id.clone(),
        protocol_type: PROTOCOL_TYPE,
        protocols: vec![JoinGroupRequestProtocol {
            name: ASSIGNOR,
            metadata: subscription.freeze(),
        }],
        ..Default::default()
    }
}

/// Of the leader: every partition to a member in turn.
fn shared_out(member: &Member, joined: &JoinGroupResponse) -> Vec<SyncGroupRequestAssignment> {
    let count = joined.members.len();
    let part = |(at, of): (usize, &Str)| {
        let mine: Vec<usize> = (at..member.partitions).step_by(count).collect();
        let mut bytes = BytesMut::with_capacity(32 + 4 * mine.len());
        bytes.put_i16(0);
        bytes.put_i32(1);
        put_text(&mut bytes, &member.topic);
        bytes.put_i32(mine.len() as i32);
        mine.iter().for_each(|p| bytes.put_i32(*p as i32));
        bytes.put_i32(-1);
        SyncGroupRequestAssignment {
            member_id: of.clone(),
            assignment: bytes.freeze(),
        }
    };
    let ids = joined.members.iter().map(|m| &m.member_id);
    ids.enumerate().map(part).collect()
}

/// The partitions in an assignment of one topic. The members' own leader wrote it, so anything else is an error.
fn read_assignment(mut bytes: Bytes) -> Result<Vec<usize>, PerfError> {
    let broken = || PerfError::Usage("an assignment came back otherwise than it was made".into());
    let mut take = |count: usize| match bytes.len() >= count {
        true => Ok(bytes.split_to(count)),
        false => Err(broken()),
    };
    let topics = take(6)?.slice(2..).get_i32();
    if topics != 1 {
        return Err(broken());
    }
    let name = take(2)?.get_i16();
    take(usize::try_from(name).map_err(|_| broken())?)?;
    let count = usize::try_from(take(4)?.get_i32()).map_err(|_| broken())?;
    let mut list = take(count.checked_mul(4).ok_or_else(broken)?)?;
    Ok((0..count).map(|_| list.get_i32() as usize).collect())
}

fn put_text(into: &mut BytesMut, text: &str) {
    into.put_i16(text.len() as i16);
    into.put_slice(text.as_bytes());
}

/// After these answers a member joins again, after some as a new one; any other is a failure.
fn starts_over(place: &mut Place, what: &str, code: i16) -> Result<(), PerfError> {
    let is = |these: &[ErrorCode]| these.iter().any(|one| one.code() == code);
    if is(&[ErrorCode::UnknownMemberId, ErrorCode::IllegalGeneration]) {
        *place = Place::default();
        return Ok(());
    }
    let passing = [
        ErrorCode::RebalanceInProgress,
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotCoordinator,
    ];
    match is(&passing) {
        true => Ok(()),
        false => Err(PerfError::Refused {
            what: what.to_string(),
            code,
        }),
    }
}

fn leave(member: &Member, client: &mut Client, place: &Place) -> Result<Ended, PerfError> {
    let request = LeaveGroupRequest {
        group_id: member.group.clone().into(),
        members: vec![MemberIdentity {
            member_id: place.member_id.clone(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = member.ask(client, &request)?;
    match answer.error_code == ErrorCode::None.code() {
        true => Ok(Ended),
        false => Err(PerfError::Refused {
            what: "leaving".into(),
            code: answer.error_code,
        }),
    }
}
