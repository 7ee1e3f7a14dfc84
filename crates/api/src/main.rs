//! The one binary of the service. What it does is its first argument: see [`api::roles`].

use std::process::ExitCode;

fn main() -> ExitCode {
    api::roles::main()
}
