//! Small state machines that keep a service up: what it admits, what it asks of others, and when it gives up.
//!
//! They know neither HTTP nor any server: callers say what happened, and are told what to do. So the same ones stand before
//! handlers, database nodes and other services, and are tested without any.

#![warn(missing_docs)]

pub mod admission;
mod criticality;

pub use criticality::Criticality;
