//! The Postgres servers of a stack: a primary, and standbys that stream from it, each through a physical slot.

mod server;
mod standby;
mod template;

pub use server::Postgres;

pub(crate) use standby::start_standby;
pub(crate) use template::Template;

/// The role applications connect as, its password, and the database made for `make run`.
pub(crate) const APP: &str = "holdfast";
/// The role of devstack's own queries and of the standby.
pub(crate) const SUPERUSER: &str = "postgres";
