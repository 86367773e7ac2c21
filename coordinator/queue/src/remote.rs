//! The implementations that processes on several machines share.

mod call;
mod inspect;
mod link;
mod objects;
mod queue;
mod store;
mod url;

pub use objects::ObjectsConfig;
pub use queue::RedisQueue;
pub use store::{SharedLimits, SharedStore};
pub use url::RedisConfig;
