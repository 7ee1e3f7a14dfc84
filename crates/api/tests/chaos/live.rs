//! Thousands of clients of the live feed, whose processes are restarted one after the other.

use std::time::Duration;

use crate::rig::restarts::rolling_restart;

const SOCKETS: usize = 5000;
const WINDOW: Duration = Duration::from_secs(10);
/// The most that may come back in a second, of what does on average.
const PEAK: f64 = 1.5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_sends_thousands_of_clients_away_evenly_and_they_miss_nothing() {
    let peaks = rolling_restart(SOCKETS, WINDOW).await;

    assert!(peaks.iter().all(|peak| *peak <= PEAK), "{peaks:?}");
}
