//! Reads that are not older than what their client has seen: positions in write-ahead logs, what a request has to see of
//! them, the tokens that carry them from one request to the next, and how far each replica has come.

mod log;
mod position;
mod progress;
mod required;
mod token;

pub(crate) use log::{Lag, Log, Need, Point};
pub use position::{Position, Positions};
pub(crate) use progress::Progress;
pub use required::Consistency;
pub use token::Tokens;
