//! The stack as its users see it.
#![expect(clippy::unwrap_used, reason = "a test has nothing better to do")]

mod databases;
