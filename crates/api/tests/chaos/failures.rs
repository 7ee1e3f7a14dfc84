//! The whole failure matrix, written down in `deploy/FAILURES.md`.

use std::{collections::BTreeMap, fs};

use tokio::time::{Duration, Instant};

use crate::matrix::{
    axes::{Dependency, Fault},
    expected::{self, Cell, Matrix},
    page,
    rig::Rig,
    trial::{Episode, trial, well},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cell_of_the_failure_matrix_is_as_expected() {
    let begun = Instant::now();
    let matrix = Matrix::read(expected::FILE).unwrap();
    let (mut episodes, mut while_well) = (Vec::new(), BTreeMap::new());

    for dependency in Dependency::ALL {
        let rig = Rig::start(&matrix.settings).await;
        while_well.insert(dependency, well(&rig, &matrix).await);
        for fault in Fault::ALL {
            let is_tried = |cell: &&Cell| (cell.dependency, cell.fault) == (dependency, fault);
            let cells: Vec<_> = matrix.cells.iter().filter(is_tried).collect();
            let episode = trial(&rig, &matrix, &cells).await;
            println!(
                "{dependency}, {fault}: noticed after {}, back after {}; {:.0?} in all",
                shown(episode.noticed),
                shown(episode.back),
                begun.elapsed()
            );
            episodes.push(episode);
        }
    }
    fs::write(
        page::FILE,
        page::write(&matrix, &episodes, &while_well).unwrap(),
    )
    .unwrap();

    let differences: Vec<_> = episodes.iter().flat_map(Episode::differences).collect();
    println!("{} cells in {:?}", matrix.cells.len(), begun.elapsed());
    assert!(differences.is_empty(), "{differences:#?}");
}

fn shown(time: Option<Duration>) -> String {
    time.map_or_else(|| "no time".to_owned(), |time| format!("{time:.1?}"))
}
