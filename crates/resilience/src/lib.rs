//! Small state machines that keep a service up: what it admits, what it asks of others, and when it gives up.
//!
//! They know neither HTTP nor any server: callers say what happened, and are told what to do. So the same ones stand before
//! handlers, database nodes and other services, and are tested without any.

#![warn(missing_docs)]

pub mod admission;
pub mod breaker;
pub mod brownout;
pub mod bulkhead;
mod criticality;
mod keyed;
mod quota;
pub mod ranges;
mod rate;
pub mod retry;
mod throttle;

pub use breaker::{Breaker, BreakerOpen};
pub use brownout::Brownout;
pub use bulkhead::{Bulkhead, BulkheadFull};
pub use criticality::Criticality;
pub use keyed::Keyed;
pub use quota::{Asked, Decision, Limit, Quota, Reach, Verdict};
pub use rate::{Rate, Standing};
pub use retry::Retries;
pub use throttle::{Steps, Throttle};
