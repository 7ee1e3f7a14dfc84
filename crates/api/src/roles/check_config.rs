//! `holdfast check-config`: the settings in force, where each came from, and no secret.

use std::process::ExitCode;

use settings::Loaded;

use crate::settings::Settings;

/// Faults have already been reported when this is reached.
pub fn run(loaded: &Loaded<Settings>) -> ExitCode {
    print!("# profile: {}\n{}", loaded.profile, loaded.render());
    ExitCode::SUCCESS
}
