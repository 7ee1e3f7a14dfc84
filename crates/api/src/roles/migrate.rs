//! `holdfast migrate`: brings the schema up to date and ends. On `postgres.direct_url`, around any pooler.

use std::process::ExitCode;

use super::{FAILED, shutdown::Signals};
use crate::settings::Settings;

pub async fn run(settings: &Settings, mut signals: Signals) -> anyhow::Result<ExitCode> {
    tokio::select! {
        applied = data::migrate::run(settings.postgres.direct_url(), &settings.migrate) => applied?,
        // Each migration is a transaction: what was not committed leaves nothing behind.
        signal = signals.next() => {
            eprintln!("holdfast migrate: stopped by {signal}; run it again to finish");
            return Ok(ExitCode::from(FAILED));
        }
    }
    Ok(ExitCode::SUCCESS)
}
