//! The long scenarios: minutes of faults under load. `make chaos` runs them; `cargo test` does not.
#![expect(clippy::unwrap_used, reason = "a test has nothing better to do")]

mod black_hole;
mod drain;
mod failures;
mod history;
mod live;
mod scene;

#[expect(dead_code, reason = "shared with `it`, which uses all of it")]
#[path = "../it/collector.rs"]
mod collector;
#[path = "../it/matrix/mod.rs"]
mod matrix;
#[expect(dead_code, reason = "shared with `it`, which uses all of it")]
#[path = "../it/live/rig/mod.rs"]
mod rig;
#[expect(dead_code, reason = "shared with `it`, which uses all of it")]
#[path = "../it/service.rs"]
mod service;
#[path = "../it/told.rs"]
mod told;
#[expect(dead_code, reason = "shared with `it`, which uses all of it")]
#[path = "../it/wire.rs"]
mod wire;
