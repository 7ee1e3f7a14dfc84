//! The failure matrix in short: each dependency and each fault once. `make chaos` tries every cell.

use std::collections::BTreeSet;

use crate::{
    faults::TURN,
    matrix::{
        axes::{Dependency, Fault, Route},
        expected::{self, Cell, Matrix},
        page,
        rig::Rig,
        trial::{Episode, trial, well},
    },
};

/// Every dependency and every fault is among them.
const DIAGONAL: [(Dependency, Fault); 6] = [
    (Dependency::Primary, Fault::Down),
    (Dependency::Standby, Fault::Slow),
    (Dependency::Redis, Fault::Hang),
    (Dependency::Payments, Fault::Down),
    (Dependency::Recommender, Fault::Reset),
    (Dependency::Collector, Fault::Flap),
];

const ROUTES: [Route; 6] = [
    Route::ProductUncached,
    Route::Recommendations,
    Route::Session,
    Route::PlaceOrder,
    Route::StaffWrite,
    Route::Probes,
];

#[tokio::test]
async fn a_diagonal_of_the_failure_matrix_is_as_expected() {
    let _turn = TURN.lock().await;
    let matrix = Matrix::read(expected::FILE).unwrap();
    let rig = Rig::start(&matrix.settings).await;
    let while_well = well(&rig, &matrix).await;

    let mut episodes = Vec::new();
    for (dependency, fault) in DIAGONAL {
        let is_tried = |cell: &&Cell| {
            (cell.dependency, cell.fault) == (dependency, fault) && ROUTES.contains(&cell.route)
        };
        let cells: Vec<_> = matrix.cells.iter().filter(is_tried).collect();
        episodes.push(trial(&rig, &matrix, &cells).await);
    }

    let while_well = Dependency::ALL.map(|dependency| (dependency, while_well.clone()));
    println!(
        "{}",
        page::write(&matrix, &episodes, &while_well.into()).unwrap()
    );
    let differences: Vec<_> = episodes.iter().flat_map(Episode::differences).collect();
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn the_diagonal_has_every_dependency_and_every_fault() {
    let (dependencies, faults): (BTreeSet<_>, BTreeSet<_>) = DIAGONAL.into_iter().unzip();

    assert_eq!(dependencies, Dependency::ALL.into());
    assert_eq!(faults, Fault::ALL.into());
}

#[test]
fn the_page_has_the_cells_of_the_matrix_and_no_others() {
    let matrix = Matrix::read(expected::FILE).unwrap();
    let page = std::fs::read_to_string(page::FILE).unwrap();

    let wanted: BTreeSet<_> = matrix.cells.iter().map(page::beginning).collect();
    let beginning = |line: &str| {
        let [_, cell, expected, _] = line.splitn(4, '|').collect::<Vec<_>>()[..] else {
            return None;
        };
        let is_cell = cell.split(", ").count() == 3;
        is_cell.then(|| format!("|{cell}|{expected}|"))
    };
    let there: BTreeSet<_> = page.lines().filter_map(beginning).collect();

    let differing: Vec<_> = wanted.symmetric_difference(&there).collect();
    assert!(
        differing.is_empty(),
        "deploy/FAILURES.md is not of this deploy/failure-matrix.toml, so run `make chaos`: {differing:#?}"
    );
}

/// What is wrong with the matrix after a change of its text.
fn fault_after(from: &str, to: &str) -> String {
    assert!(expected::FILE.contains(from), "{from} is not in the file");
    let changed = expected::FILE.replacen(from, to, 1);
    Matrix::read(&changed).unwrap_err()
}

#[test]
fn the_matrix_says_in_one_line_what_is_wrong_with_it() {
    for (from, to, fault) in [
        (
            "probes           = {",
            "# {",
            "[routes]: `probes` is missing",
        ),
        (
            "session          = { status = [200], within",
            "session = { within",
            "[routes]: `session` needs `status` and `within`, and nothing else",
        ),
        (
            "unharmed = [\"products\", \"events\", \"probes\"]",
            "unharmed = [\"products\", \"events\"]",
            "[dependency.redis]: `probes` is missing",
        ),
        (
            "unharmed = [\"products\", \"events\", \"probes\"]",
            "unharmed = [\"products\", \"events\", \"probes\", \"orders\"]",
            "[dependency.redis]: `orders` is named twice",
        ),
        (
            "unharmed = [\"products\", \"events\", \"probes\"]",
            "unharmed = [\"products\", \"events\", \"probes\", \"probes\"]",
            "[dependency.redis]: `probes` is named twice",
        ),
    ] {
        assert_eq!(fault_after(from, to), fault);
    }
    for (from, to, key) in [
        ("but.flap.status = [201", "but.flop.status = [201", "`flop`"),
        (
            "[dependency.redis.routes]",
            "[dependency.redis.rowts]",
            "`rowts`",
        ),
        ("products         = {", "product          = {", "`product`"),
        ("within = \"300ms\"", "wihtin = \"300ms\"", "`wihtin`"),
        ("[dependency.collector]", "[dependency.cache]", "`cache`"),
        (
            "[dependency.collector]",
            "[dependency.redis]",
            "`redis`: duplicate key",
        ),
    ] {
        let fault = fault_after(from, to);
        assert!(fault.starts_with("line ") && fault.contains(key), "{fault}");
        assert_eq!(fault.lines().count(), 1, "{fault}");
    }
}
