//! What holds for the whole process and the whole workspace.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up can only fail"
)]

mod plans;
mod service;
mod shutdown;
mod slow_clients;
mod walls;
mod wire;
