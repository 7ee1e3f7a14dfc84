//! A steady stream of requests, and what became of each.

use std::time::Duration;

use data::Error;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// So many requests run at once.
pub const WORKERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// Requests that run until `finish`.
pub struct Load {
    workers: JoinSet<Vec<Answer>>,
    stop: CancellationToken,
}

/// What became of one request.
#[derive(Debug)]
pub struct Answer {
    pub took: Duration,
    pub outcome: Result<(), Error>,
}

impl Load {
    /// Repeats the request on a few workers at once.
    pub fn start<F>(request: impl Fn() -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            workers.spawn(work(request.clone(), stop.clone()));
        }
        Self { workers, stop }
    }

    /// Lets the requests under way end.
    pub async fn finish(self) -> Vec<Answer> {
        self.stop.cancel();
        self.workers
            .join_all()
            .await
            .into_iter()
            .flatten()
            .collect()
    }
}

async fn work<F>(request: impl Fn() -> F, stop: CancellationToken) -> Vec<Answer>
where
    F: Future<Output = Result<(), Error>>,
{
    let mut answers = Vec::new();
    while !stop.is_cancelled() {
        let start = Instant::now();
        let outcome = request().await;
        answers.push(Answer {
            took: start.elapsed(),
            outcome,
        });
        sleep(PAUSE).await;
    }
    answers
}

/// Those that failed.
pub fn failures(answers: &[Answer]) -> Vec<&Answer> {
    answers
        .iter()
        .filter(|answer| answer.outcome.is_err())
        .collect()
}

/// Prints the count and the slowest, and answers with the slowest.
pub fn slowest(what: &str, answers: &[Answer]) -> Duration {
    let slowest = answers
        .iter()
        .map(|answer| answer.took)
        .max()
        .unwrap_or_default();
    println!(
        "{what}: {} requests, the slowest took {slowest:?}",
        answers.len()
    );
    slowest
}
