//! Where the values of a namespace come from.

use std::fmt::Display;
use std::hash::Hash;
use std::str::FromStr;

use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::Error;

/// Loads the values of one namespace. It belongs to the namespace and not to a call, because a value is also loaded when
/// no caller waits for it.
pub trait Source: Send + Sync + 'static {
    /// Names a value. Its text is the end of the key in Redis, and must parse to the same key again.
    type Key: Display + FromStr + Clone + Eq + Hash + Send + Sync + 'static;
    /// What is kept, as JSON in Redis and as it is in process.
    type Value: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The value as it is now, or `None` if there is no such thing. Several callers may share the answer, so it must not
    /// depend on who asks.
    ///
    /// # Errors
    /// Whatever keeps it from finding out, at the latest when `deadline` passes. A transient error may be answered
    /// with an older value.
    fn load(
        &self,
        key: &Self::Key,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<Self::Value>, Error>> + Send;
}
