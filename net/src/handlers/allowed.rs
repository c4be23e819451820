//! Owns what clients are told they may do with a topic, a group or the node, where they ask.
//! Does not know who asks: there is no authorization, so it is all that can be done.
//! Invariant: as in Kafka without an authorizer, one bit for each operation at the number that Kafka gives it.

const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const CREATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 6;
const ALTER: i32 = 1 << 7;
const DESCRIBE: i32 = 1 << 8;
const CLUSTER_ACTION: i32 = 1 << 9;
const DESCRIBE_CONFIGS: i32 = 1 << 10;
const ALTER_CONFIGS: i32 = 1 << 11;
const IDEMPOTENT_WRITE: i32 = 1 << 12;

pub(crate) const WITH_TOPIC: i32 =
    READ | WRITE | CREATE | DELETE | ALTER | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;

pub(crate) const WITH_GROUP: i32 = READ | DELETE | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;

pub(crate) const WITH_CLUSTER: i32 = CREATE
    | ALTER
    | DESCRIBE
    | CLUSTER_ACTION
    | DESCRIBE_CONFIGS
    | ALTER_CONFIGS
    | IDEMPOTENT_WRITE;

/// Stands for "not asked for".
const UNASKED: i32 = i32::MIN;

pub(crate) fn if_asked(asked: bool, operations: i32) -> i32 {
    if asked {
        operations
    } else {
        UNASKED
    }
}
