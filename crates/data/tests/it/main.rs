//! The data layer against real servers, and against servers that are frozen, killed and cut off.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test that cannot go on panics, as the test would"
)]

mod postgres;
