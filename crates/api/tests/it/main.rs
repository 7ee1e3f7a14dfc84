//! What holds for the whole process.
#![expect(clippy::unwrap_used, reason = "a test has nothing better to do")]

mod plans;
mod service;
mod shutdown;
mod slow_clients;
mod wire;
