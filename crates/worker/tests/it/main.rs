//! Jobs on a real Postgres: enqueued, claimed, lost, failed, stopped and counted. One binary, one file per part.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers included"
)]

mod claims;
mod enqueuing;
mod failures;
mod leases;
mod load;
mod pooler;
mod rig;
mod schedules;
mod stopping;
