//! The failure matrix: what a client may expect of each route while one dependency has one fault. `deploy/failure-matrix.toml`
//! says it, and what is here tries it on real processes. `make chaos` tries every cell and writes `deploy/FAILURES.md`; a
//! diagonal of it is part of `make test`.

pub mod axes;
pub mod expected;
#[path = "../../../benches/stack/machine.rs"]
mod machine;
pub mod page;
pub mod rig;
mod routes;
pub mod trial;
