//! Everything that is kept: Postgres behind a router of primary and replicas, Redis, the cache over both
//! levels, and the session store. Knows neither axum nor any feature of the shop.

mod error;
pub mod migrate;
pub mod postgres;

pub use error::Error;
