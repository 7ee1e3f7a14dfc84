//! What has happened, told to every process at once and kept for whoever comes back later.
//!
//! A topic is a stream in Redis, and a channel on which the same is published in the same step. A process follows each with one
//! subscription and deals out what comes to its own clients ([`Hub`]). Each message says which one was before it, so a process
//! that has missed any, as whenever its connection was lost, notices, and reads them from the stream. A client that comes back,
//! to any process, says by its [`Token`] how far it had come, and gets what it has missed; where that cannot be had any more it is
//! told so. Nothing is lost silently.

mod config;
mod hub;
mod inbox;
mod message;
mod metrics;
mod place;
mod queue;
mod ring;
mod stream;
mod subscriber;
mod topic;

pub use self::config::Config;
pub use self::hub::{Arrival, Hub};
pub use self::message::Message;
pub use self::place::Token;
pub use self::queue::TooSlow;
pub use self::stream::{Event, Feed};
pub use self::subscriber::{Delivery, Subscriber};
pub use self::topic::Interest;
