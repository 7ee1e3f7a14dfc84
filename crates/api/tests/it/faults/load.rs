//! A bounded load: a few clients that keep their connections and note every answer.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::LOOSE;
use crate::{service::PATIENCE, wire::Wire};

const CLIENTS: usize = 4;
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs until it is dropped.
pub struct Load {
    samples: Arc<Mutex<Vec<Sample>>>,
    _clients: JoinSet<()>,
}

/// One request: its status, 0 when there was no answer, and how long it took.
#[derive(Clone, Copy, Debug)]
struct Sample {
    status: u16,
    took: Duration,
}

impl Load {
    /// GETs each of `paths` in turn.
    pub fn start(address: SocketAddr, paths: &[String]) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let one = |_| client(address, paths.to_vec(), Arc::clone(&samples));
        let clients = (0..CLIENTS).map(one).collect();
        Self {
            samples,
            _clients: clients,
        }
    }

    /// Waits until so many more requests have ended.
    pub async fn more(&self, requests: usize) {
        let count = || self.samples.lock().unwrap().len();
        let target = count() + requests;
        let deadline = Instant::now() + PATIENCE;
        while count() < target {
            assert!(Instant::now() < deadline, "the load has stopped");
            sleep(PAUSE).await;
        }
    }

    /// Every request since the last phase was answered with 200, and none late. Prints the figures.
    pub fn all_answered(&self, phase: &str) {
        let mut samples = std::mem::take(&mut *self.samples.lock().unwrap());
        assert!(!samples.is_empty(), "nothing was asked: {phase}");
        samples.sort_by_key(|sample| sample.took);
        let failed: Vec<_> = samples
            .iter()
            .filter(|sample| sample.status != 200)
            .collect();
        let (last, p99) = (
            samples.len() - 1,
            samples[(samples.len() - 1) * 99 / 100].took,
        );
        let max = samples[last].took;
        println!(
            "{phase}: {} reads, {} failed, p99 {p99:?}, max {max:?}",
            samples.len(),
            failed.len()
        );
        assert!(failed.is_empty(), "{phase}: {failed:?}");
        assert!(max < LOOSE, "{phase}: {max:?}");
    }
}

async fn client(address: SocketAddr, paths: Vec<String>, samples: Arc<Mutex<Vec<Sample>>>) {
    let mut kept = None;
    for path in paths.iter().cycle() {
        let begun = Instant::now();
        let mut wire = match kept.take() {
            Some(wire) => wire,
            None => Wire::connect(address).await.unwrap(),
        };
        let reply = wire.get(path).await;
        let status = reply.as_ref().map_or(0, |reply| reply.status);
        samples.lock().unwrap().push(Sample {
            status,
            took: begun.elapsed(),
        });
        kept = reply.is_ok_and(|reply| !reply.closes()).then_some(wire);
        sleep(PAUSE).await;
    }
}
