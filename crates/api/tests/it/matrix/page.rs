//! The results as a page: `deploy/FAILURES.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    time::Duration,
};

use super::{
    axes::{Dependency, Route},
    expected::{Cell, Matrix},
    machine::machine,
    trial::{Episode, Outcome},
};

pub const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/FAILURES.md");

const HEAD: &str = "# Failures\n
What clients saw of each route while one dependency had one fault, and what they may expect by `failure-matrix.toml`.
Written by `make chaos`, or by `cargo test -p api --test chaos failures -- --nocapture` alone; do not edit.\n";

const LEGEND: &str = "`down`: connections are refused. `hang`: they stay open and nothing answers. `slow`: each answer takes 2 s longer. `reset`: they
are accepted and reset. `flap`: down for 300 ms of each second.\n
Times are those of a debug build on this machine, from the first moment of the fault on. The bound that is expected is what the
settings make of it on an idle machine; a cell fails when it is exceeded by more than `slack`. Degradations are those in
the header; the log, the metric and `/ready` named the same ones.";

/// How long each route takes while all is well.
pub type Well = BTreeMap<Dependency, BTreeMap<Route, Duration>>;

pub fn write(matrix: &Matrix, episodes: &[Episode], well: &Well) -> Result<String, fmt::Error> {
    let mut page = HEAD.to_owned();
    writeln!(page, "\n{}\n", machine())?;
    let cells = episodes.iter().map(|episode| episode.outcomes.len());
    let differences: Vec<_> = episodes.iter().flat_map(Episode::differences).collect();
    writeln!(
        page,
        "{} cells, {} differences.",
        cells.sum::<usize>(),
        differences.len()
    )?;
    for difference in differences {
        writeln!(page, "- **{difference}**")?;
    }
    writeln!(page, "\n{LEGEND}")?;
    let settings = matrix.settings.iter();
    let settings: Vec<_> = settings
        .map(|(key, value)| format!("`{key} = {value}`"))
        .collect();
    writeln!(page, "Settings as shipped, except {}.", settings.join(", "))?;
    overview(&mut page, episodes)?;
    for (dependency, well) in well {
        let episodes = episodes
            .iter()
            .filter(|episode| episode.dependency == *dependency);
        writeln!(page, "\n## {dependency}\n")?;
        whole(&mut page, episodes.clone())?;
        rows(&mut page, episodes, well)?;
    }
    Ok(page)
}

/// Every status that was seen of a route, whatever the fault.
fn overview(page: &mut String, episodes: &[Episode]) -> fmt::Result {
    let mut seen: BTreeMap<_, BTreeSet<u16>> = BTreeMap::new();
    for outcome in episodes.iter().flat_map(|episode| &episode.outcomes) {
        let place = (outcome.cell.route, outcome.cell.dependency);
        let statuses = outcome.statuses.keys().copied();
        seen.entry(place).or_default().extend(statuses);
    }
    let dependencies = Dependency::ALL.map(|dependency| dependency.to_string());
    writeln!(page, "\nStatuses that were seen, whatever the fault:\n")?;
    writeln!(page, "| | {} |", dependencies.join(" | "))?;
    writeln!(page, "|---|{}", "---|".repeat(dependencies.len()))?;
    for route in Route::ALL {
        write!(page, "| {route} |")?;
        for dependency in Dependency::ALL {
            let statuses = seen.get(&(route, dependency)).into_iter().flatten();
            let statuses: Vec<_> = statuses.map(u16::to_string).collect();
            write!(page, " {} |", statuses.join(", "))?;
        }
        writeln!(page)?;
    }
    Ok(())
}

/// What holds for all routes during each fault.
fn whole<'a>(page: &mut String, episodes: impl Iterator<Item = &'a Episode>) -> fmt::Result {
    let seconds = |duration: Option<Duration>| {
        duration.map_or("–".to_owned(), |duration| {
            format!("{:.1} s", duration.as_secs_f64())
        })
    };
    writeln!(page, "| fault | in `/ready` after | all as before after |")?;
    writeln!(page, "|---|---:|---:|")?;
    for episode in episodes {
        let (noticed, back) = (seconds(episode.noticed), seconds(episode.back));
        writeln!(page, "| {} | {noticed} | {back} |", episode.fault)?;
    }
    writeln!(page)
}

fn rows<'a>(
    page: &mut String,
    episodes: impl Iterator<Item = &'a Episode>,
    well: &BTreeMap<Route, Duration>,
) -> fmt::Result {
    writeln!(
        page,
        "| cell | expected | seen | p50 | max | p50 while all is well | `Degraded` |"
    )?;
    writeln!(page, "|---|---|---|---:|---:|---:|---|")?;
    for outcome in episodes.flat_map(|episode| &episode.outcomes) {
        let well = well.get(&outcome.cell.route).copied().unwrap_or_default();
        writeln!(page, "{}", row(outcome, well))?;
    }
    Ok(())
}

fn row(outcome: &Outcome, well: Duration) -> String {
    let statuses = outcome.statuses.iter();
    let statuses: Vec<_> = statuses
        .map(|(status, times)| format!("{times} × {status}"))
        .collect();
    let labels: Vec<_> = outcome.labels.iter().map(String::as_str).collect();
    let (mark, end) = match outcome.differs.is_empty() {
        true => ("", String::new()),
        false => ("**", format!(": {}**", outcome.differs.join("; "))),
    };
    format!(
        "{} {mark}{}{end} | {} | {} | {} | {} |",
        beginning(&outcome.cell),
        statuses.join(", "),
        ms(outcome.p50),
        ms(outcome.max),
        ms(well),
        labels.join(", ")
    )
}

/// What a row says of its cell before anything was tried.
pub fn beginning(cell: &Cell) -> String {
    let Cell {
        dependency,
        fault,
        route,
        expected,
    } = cell;
    format!("| {dependency}, {fault}, {route} | {expected} |")
}

fn ms(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    match ms < 10.0 {
        true => format!("{ms:.1} ms"),
        false => format!("{ms:.0} ms"),
    }
}
