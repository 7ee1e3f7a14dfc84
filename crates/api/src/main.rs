//! The one binary of the service. What it does is its first argument: see [`api::roles`].

use std::process::ExitCode;

/// Gives memory back after a burst of connections, which glibc's keeps: see `deploy/bench/RESULTS.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    api::roles::main()
}
