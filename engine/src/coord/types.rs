//! Owns what the layer above asks of a group coordinator and what it hears back: plain structs and one closed error.
//! Does not know Kafka's request schemas or error codes, nor how a group works.
//! Invariant: times are milliseconds, generations and offsets are Kafka's numbers, -1 stands for "none" where it does there.

use super::txn::{Membership, TxnError, TxnOf};
use crate::types::TopicId;
use bytes::Bytes;

/// Why a coordinator refuses; the layer above gives each its Kafka code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupError {
    #[error("the broker is stopping, or its storage refuses writes")]
    NotAvailable,
    #[error("the group id is not valid")]
    InvalidGroupId,
    #[error("the group is not known")]
    GroupIdNotFound,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("the group is as large as it may become")]
    GroupMaxSizeReached,
    #[error("the group reads this topic")]
    GroupSubscribedToTopic,
    #[error("the member is not known")]
    UnknownMemberId,
    #[error("the member has to join again with the id it was given")]
    MemberIdRequired,
    #[error("another member took over this instance id")]
    FencedInstanceId,
    #[error("the generation is not the group's")]
    IllegalGeneration,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the protocols do not fit those of the group")]
    InconsistentGroupProtocol,
    #[error("the session timeout is outside of what the broker allows")]
    InvalidSessionTimeout,
    #[error("the metadata of a committed offset is too long")]
    OffsetMetadataTooLarge,
    #[error("the commit is larger than a batch may be")]
    InvalidCommitOffsetSize,
    #[error("the topic or partition is not known")]
    UnknownTopicOrPartition,
    #[error("the group is larger than a batch may be")]
    RecordTooLarge,
    #[error("an offset of a transaction that is not over yet")]
    UnstableOffsetCommit,
    #[error("the member's epoch is not the one it has")]
    StaleMemberEpoch,
    #[error("the member has to give up all it holds, and join again")]
    FencedMemberEpoch,
    #[error("the member that has this instance id is still there")]
    UnreleasedInstanceId,
    #[error("the assignor is not offered")]
    UnsupportedAssignor,
    #[error("the regular expression is not valid, or too large")]
    InvalidRegularExpression,
    #[error("the transaction of the commit: {0}")]
    Txn(TxnError),
}

/// JoinGroup.
#[derive(Clone, Debug)]
pub struct JoinGroup {
    pub group: String,
    /// Empty where the member has no id yet.
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    /// As Kafka shows it: `/127.0.0.1`.
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// Name and metadata, the member's favourite first.
    pub protocols: Vec<(String, Bytes)>,
    /// A dynamic member without an id is given one and sent away to join with it (from version 4 on).
    pub require_known_member: bool,
    /// A static leader that comes back may be told to keep the assignment (from version 9 on).
    pub supports_skipping_assignment: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedMember {
    pub member: String,
    pub instance: Option<String>,
    pub metadata: Bytes,
}

/// Answer to JoinGroup, of errors too: MEMBER_ID_REQUIRED tells the id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    pub error: Option<GroupError>,
    /// -1 with an error.
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    pub skip_assignment: bool,
    pub member: String,
    /// For the leader only, else empty.
    pub members: Vec<JoinedMember>,
}

impl Joined {
    /// The answer to a member that may not join.
    pub fn refused(member: &str, why: GroupError) -> Joined {
        Joined {
            error: Some(why),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member: member.to_string(),
            members: Vec::new(),
        }
    }
}

/// SyncGroup.
#[derive(Clone, Debug)]
pub struct SyncGroup {
    pub group: String,
    pub generation: i32,
    pub member: String,
    pub instance: Option<String>,
    /// None where the version does not say (before 5).
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// Of the leader: member id and its part.
    pub assignments: Vec<(String, Bytes)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synced {
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

/// Who commits, heartbeats: a member of a generation. Simple consumers have an empty id and generation -1.
#[derive(Clone, Debug)]
pub struct MemberOf {
    pub group: String,
    pub generation: i32,
    pub member: String,
    pub instance: Option<String>,
}

/// One member of LeaveGroup; `member` may be empty where `instance` is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaver {
    pub member: String,
    pub instance: Option<String>,
}

/// One partition of OffsetCommit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetToCommit {
    pub topic: String,
    /// NIL where the topic is not known.
    pub topic_id: TopicId,
    pub partition: i32,
    pub offset: i64,
    /// -1 where the client has none.
    pub leader_epoch: i32,
    pub metadata: String,
}

/// OffsetCommit; the results are in the order of `offsets`.
#[derive(Clone, Debug)]
pub struct CommitOffsets {
    pub by: MemberOf,
    /// Versions 2 to 4 say how long offsets are kept; -1 for the broker's default.
    pub retention_ms: i64,
    pub offsets: Vec<OffsetToCommit>,
}

/// TxnOffsetCommit; the results are in the order of the offsets.
#[derive(Clone, Debug)]
pub struct CommitInTxn {
    pub of: TxnOf,
    pub membership: Membership,
    pub commit: CommitOffsets,
}

/// OffsetFetch of one group.
#[derive(Clone, Debug)]
pub struct FetchOffsets {
    pub group: String,
    /// Of members of the new protocol (versions 9 and up); None and -1 elsewhere.
    pub member: Option<String>,
    pub member_epoch: i32,
    /// None: all of the group's. Otherwise topic and partitions, answered in this order.
    pub topics: Option<Vec<(String, Vec<i32>)>>,
    /// Where a transaction is not over that may change an offset, nothing but that is told.
    pub require_stable: bool,
}

/// What was committed for a partition; offset and epoch are -1 where nothing was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedOffset {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
    /// A transaction is not over that may change it; the rest is as where nothing was committed.
    pub unstable: bool,
}

pub type FetchedOffsets = Vec<(String, Vec<(i32, CommittedOffset)>)>;

/// State of a group by Kafka's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl GroupState {
    pub const fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// One line of ListGroups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedGroup {
    pub group: String,
    /// Empty for groups that only have offsets.
    pub protocol_type: String,
    /// Type and state by Kafka's names.
    pub kind: &'static str,
    pub state: &'static str,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedMember {
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Both empty while the group is not stable.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// Answer to DescribeGroups of one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedGroup {
    pub state: GroupState,
    pub protocol_type: String,
    /// The protocol chosen; empty while the group is not stable.
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}
