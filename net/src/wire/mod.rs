//! Owns the bytes of the Kafka protocol: frames, headers and one codec per API key, in both directions.
//! Does not know sockets, handlers, topics that exist or what a request means.
//! Keeps: input of any shape yields a value or a [`WireError`]; it never panics and never allocates more than
//! [`primitives::DECODE_MEMORY_FACTOR`] times its size (plus a small constant).
pub mod error;
pub mod error_code;
pub mod frame;
pub mod primitives;
mod schema;
pub mod versions;

pub mod api_versions;
pub mod fetch;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod produce;

pub use error::WireError;
pub use error_code::ErrorCode;
pub use primitives::{Reader, Records, Str, Writer};
pub use schema::{Message, Request};
pub use versions::ApiKey;
