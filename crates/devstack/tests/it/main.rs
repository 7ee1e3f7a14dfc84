//! The stack as its users see it.
#![expect(clippy::unwrap_used, reason = "a test has nothing better to do")]

mod databases;
mod endings;
mod faults;
mod http;
mod pgbouncer;
mod sandbox;
mod servers;
mod standbys;

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Generous, because it only decides how long a broken test takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until the check yields something.
async fn eventually<T>(claim: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "not within {DEADLINE:?}: {claim}"
        );
        sleep(Duration::from_millis(10)).await;
    }
}
