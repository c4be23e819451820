//! Owns the bytes of the Kafka protocol: frames, headers and one codec per API key, in both directions.
//! Does not know sockets, handlers, topics that exist or what a request means.
//! Keeps: input of any shape yields a value or a [`WireError`]; it never panics and never allocates more than
//! [`primitives::DECODE_MEMORY_FACTOR`] times its size (plus a small constant).
pub mod alter_partition_reassignments;
pub mod alter_replica_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod elect_leaders;
pub mod error;
pub mod error_code;
mod fields;
pub mod frame;
pub mod list_config_resources;
pub mod list_partition_reassignments;
pub mod primitives;
mod schema;
pub mod unregister_broker;
pub mod update_features;
mod values;
pub mod versions;

pub mod add_offsets_to_txn;
pub mod add_partitions_to_txn;
pub mod alter_configs;
pub mod api_versions;
pub mod batch;
pub mod compress;
pub mod config_codes;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_topic_partitions;
pub mod describe_transactions;
pub mod end_txn;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod list_transactions;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod record;
pub mod sync_group;
pub mod txn_offset_commit;
pub mod write_txn_markers;

pub use error::WireError;
pub use error_code::ErrorCode;
pub use primitives::{Reader, Writer};
pub use schema::{Message, Request};
pub use values::{Records, Str};
pub use versions::ApiKey;
