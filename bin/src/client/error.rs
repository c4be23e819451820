//! Owns the ways a client call can fail, which of them are worth another try, and advice for people.
//! Does not know which call failed beyond the words it is given.
//! Invariant: an error code of the broker is never swallowed: it is retried within bounds or told.

use crate::failure::Failure;
use crate::units::HostPort;
use millrace_net::wire::error_code::describe;
use millrace_net::wire::{ErrorCode, WireError};
use std::io;

/// Why a call to a broker failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot connect to {at}: {source}")]
    Connect { at: HostPort, source: io::Error },
    #[error("the connection to {at} failed: {source}")]
    Io { at: HostPort, source: io::Error },
    #[error("{at} sent something that is not Kafka's protocol: {source}")]
    Protocol { at: HostPort, source: WireError },
    #[error("cannot encode the request: {0}")]
    Encode(WireError),
    #[error("{at} does not serve {api}")]
    NoApi { at: HostPort, api: &'static str },
    #[error("{at} serves {api} in versions {theirs:?} only, this client speaks {ours:?}")]
    NoVersion {
        at: HostPort,
        api: &'static str,
        theirs: (i16, i16),
        ours: (i16, i16),
    },
    #[error("{what}: {}{}", describe(*code), message.as_deref().map_or(String::new(), |m| format!(" ({m})")))]
    Broker {
        what: String,
        code: i16,
        message: Option<String>,
    },
    #[error("{0}")]
    Batch(String),
    #[error("{0} has no leader")]
    NoLeader(String),
}

impl ClientError {
    /// A Kafka error code; `what` says what it happened to.
    pub fn broker(what: impl Into<String>, code: i16, message: Option<&str>) -> ClientError {
        let message = message.filter(|m| !m.is_empty()).map(str::to_string);
        ClientError::Broker {
            what: what.into(),
            code,
            message,
        }
    }

    /// Ok for code 0.
    pub fn check(
        what: impl FnOnce() -> String,
        code: i16,
        message: Option<&str>,
    ) -> Result<(), ClientError> {
        if code == ErrorCode::None.code() {
            Ok(())
        } else {
            Err(ClientError::broker(what(), code, message))
        }
    }

    /// Whether the same call may succeed a little later, perhaps at another broker.
    pub fn is_retriable(&self) -> bool {
        match self {
            ClientError::Connect { .. } | ClientError::Io { .. } | ClientError::NoLeader(_) => true,
            ClientError::Broker { code, .. } => is_retriable(*code),
            ClientError::Protocol { .. }
            | ClientError::Encode(_)
            | ClientError::NoApi { .. }
            | ClientError::NoVersion { .. }
            | ClientError::Batch(_) => false,
        }
    }

    /// The code the broker gave, where it gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Broker { code, .. } => ErrorCode::from_code(*code),
            _ => None,
        }
    }
}

/// Codes that Kafka's own clients retry.
pub fn is_retriable(code: i16) -> bool {
    use ErrorCode as E;
    let Some(code) = ErrorCode::from_code(code) else {
        return false;
    };
    matches!(
        code,
        E::CorruptMessage
            | E::UnknownTopicOrPartition
            | E::LeaderNotAvailable
            | E::NotLeaderOrFollower
            | E::RequestTimedOut
            | E::ReplicaNotAvailable
            | E::NetworkException
            | E::CoordinatorLoadInProgress
            | E::CoordinatorNotAvailable
            | E::NotCoordinator
            | E::NotEnoughReplicas
            | E::NotEnoughReplicasAfterAppend
            | E::NotController
            | E::KafkaStorageError
            | E::FetchSessionIdNotFound
            | E::InvalidFetchSessionEpoch
            | E::ListenerNotFound
            | E::FencedLeaderEpoch
            | E::UnknownLeaderEpoch
            | E::OffsetNotAvailable
            | E::PreferredLeaderNotAvailable
            | E::EligibleLeadersNotAvailable
            | E::ElectionNotNeeded
            | E::ThrottlingQuotaExceeded
            | E::UnknownTopicId
            | E::InconsistentTopicId
            | E::ConcurrentTransactions
    )
}

/// What a person can do about it, where that is known.
fn advice(error: &ClientError) -> Option<&'static str> {
    use ErrorCode as E;
    match error {
        ClientError::Connect { .. } => {
            Some("Check that a broker runs there (`millrace serve`), or name one with --bootstrap HOST:PORT.")
        }
        ClientError::Io { .. } => Some("The broker closed the connection or hangs; its log says why."),
        ClientError::Protocol { .. } => {
            Some("Is that port a Kafka broker's plain listener? TLS and SASL are not spoken by this client yet.")
        }
        ClientError::NoApi { .. } | ClientError::NoVersion { .. } => {
            Some("Use a broker compatible with Apache Kafka 2.1 or newer.")
        }
        ClientError::NoLeader(_) => Some("Try again later; `millrace topic describe` shows the partitions."),
        ClientError::Encode(_) | ClientError::Batch(_) => None,
        ClientError::Broker { code, .. } => match ErrorCode::from_code(*code)? {
            E::UnknownTopicOrPartition | E::UnknownTopicId => {
                Some("`millrace topic list` shows the topics; `millrace topic create` makes one.")
            }
            E::TopicAlreadyExists => Some("Choose another name, or change it with `millrace topic alter`."),
            E::MessageTooLarge | E::RecordListTooLarge => {
                Some("Raise the topic's limit: `millrace topic alter TOPIC --config max.message.bytes=BYTES`.")
            }
            E::InvalidReplicationFactor => Some("There are fewer brokers than replicas asked for."),
            E::InvalidPartitions => Some(
                "A topic has at least one partition, and their number can only grow, up to the limit.",
            ),
            E::InvalidTopicException => {
                Some("A topic's name has up to 249 letters, digits, dots, dashes and underscores.")
            }
            E::NotEnoughReplicas | E::NotEnoughReplicasAfterAppend => {
                Some("Fewer replicas are in sync than min.insync.replicas asks for.")
            }
            E::KafkaStorageError => Some("The broker's disk failed or is full; its log says which."),
            E::UnsupportedCompressionType => Some("Use another --compression."),
            E::GroupIdNotFound => Some("`millrace group list` shows the groups."),
            E::InvalidGroupId => Some("A group's name may not be empty."),
            // What a member that is none is told: this client never joins a group, so that others are in it.
            E::NonEmptyGroup | E::UnknownMemberId | E::RebalanceInProgress | E::IllegalGeneration => Some(
                "The group has members: stop them first; `millrace group describe GROUP --members` shows them.",
            ),
            E::GroupSubscribedToTopic => Some(
                "Members of the group still read that topic; `millrace group describe GROUP --members` shows them.",
            ),
            E::CoordinatorLoadInProgress | E::CoordinatorNotAvailable | E::NotCoordinator => {
                Some("The broker that coordinates the group is starting or changing; try again a little later.")
            }
            _ => None,
        },
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let failure = Failure::new(error.to_string());
        match advice(&error) {
            Some(todo) => failure.todo(todo),
            None => failure,
        }
    }
}
