//! Writes down what became of jobs, as many at once as have ended meanwhile.

use std::time::Duration;

use data::Error;
use data::postgres::Writer;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::runner::Shared;
use crate::store::{self, Dying, Key, Keys, Returned};

/// A job that runs no longer.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) key: Key,
    pub(crate) kind: &'static str,
    pub(crate) attempts: i32,
    pub(crate) verdict: Verdict,
}

/// What became of an attempt.
#[derive(Debug)]
pub(crate) enum Verdict {
    Done,
    /// In a transaction of its own.
    Finished,
    Snoozed(Duration),
    /// It is to be tried again. Why.
    Failed(String),
    Dead(Reason, Option<String>),
    /// The process ends.
    Released,
    /// It is somebody else's.
    Lost,
}

/// Why a job is dead.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    /// The last attempt failed.
    Failed,
    /// Its handler says that it will never be done.
    GaveUp,
    /// The last attempt was begun and never ended: its process died, or was cut off.
    Abandoned,
    /// Its deadline has passed.
    Expired,
    /// Its payload cannot be read.
    Unreadable,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::GaveUp => "gave_up",
            Self::Abandoned => "abandoned",
            Self::Expired => "expired",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Verdict {
    /// The same after so many attempts: the last one that fails is the end.
    pub(crate) fn after(self, attempts: i32, attempts_max: u16) -> Self {
        match self {
            Self::Failed(error) if attempts >= i32::from(attempts_max) => {
                Self::Dead(Reason::Failed, Some(error))
            }
            other => other,
        }
    }

    /// Its name in metrics.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Done | Self::Finished => "done",
            Self::Snoozed(_) => "snoozed",
            Self::Failed(_) => "retried",
            Self::Dead(reason, _) => reason.as_str(),
            Self::Released => "released",
            Self::Lost => "lost",
        }
    }
}

/// What is written with one statement each.
#[derive(Debug, Default)]
struct Batch {
    done: Keys,
    returned: Returned,
    dying: Dying,
}

/// Writes down what became of jobs until `last`, and then what is left.
pub(crate) async fn settle(
    shared: &Shared,
    mut ends: mpsc::Receiver<Ended>,
    last: &CancellationToken,
) {
    let mut ended = Vec::new();
    loop {
        let receiving = ends.recv_many(&mut ended, shared.held.capacity());
        if last.run_until_cancelled(receiving).await.is_none() {
            break;
        }
        write(shared, &mut ended, last).await;
    }
    while let Ok(one) = ends.try_recv() {
        ended.push(one);
    }
    write(shared, &mut ended, last).await;
}

async fn write(shared: &Shared, ended: &mut Vec<Ended>, last: &CancellationToken) {
    let batch = Batch::of(ended, &shared.config);
    let mut ours = Vec::new();
    for part in [Part::Done, Part::Returned, Part::Dying] {
        if !part.keys(&batch).ids.is_empty() {
            ours.extend(surely(shared, last, &batch, part).await);
        }
    }
    ours.sort_unstable();
    for one in ended.iter() {
        let is_ours = match one.verdict {
            Verdict::Finished | Verdict::Lost => true,
            _ => ours.binary_search(&one.key.0).is_ok(),
        };
        let outcome = if is_ours {
            one.verdict.as_str()
        } else {
            "lost"
        };
        shared.metrics.ended(one.kind, outcome);
    }
    shared.held.remove(ended.drain(..).map(|one| one.key));
}

impl Batch {
    fn of(ended: &[Ended], config: &Config) -> Self {
        let mut batch = Self::default();
        for one in ended {
            match &one.verdict {
                Verdict::Done => batch.done.push(one.key),
                Verdict::Finished | Verdict::Lost => {}
                Verdict::Snoozed(time) => batch.give_back(one.key, *time, 1, None),
                Verdict::Released => batch.give_back(one.key, Duration::ZERO, 1, None),
                Verdict::Failed(error) => {
                    let pause = config.retry_pause(one.attempts);
                    batch.give_back(one.key, pause, 0, Some(error.clone()));
                }
                Verdict::Dead(reason, error) => {
                    batch.dying.keys.push(one.key);
                    batch.dying.reasons.push(reason.as_str());
                    batch.dying.errors.push(error.clone());
                }
            }
        }
        batch
    }

    fn give_back(&mut self, key: Key, delay: Duration, refund: i32, error: Option<String>) {
        self.returned.keys.push(key);
        self.returned.delays_s.push(delay.as_secs_f64());
        self.returned.refunds.push(refund);
        self.returned.errors.push(error);
    }
}

/// The statement for a part of a batch.
#[derive(Clone, Copy)]
enum Part {
    Done,
    Returned,
    Dying,
}

impl Part {
    fn keys(self, batch: &Batch) -> &Keys {
        match self {
            Self::Done => &batch.done,
            Self::Returned => &batch.returned.keys,
            Self::Dying => &batch.dying.keys,
        }
    }

    async fn write(self, home: &Writer, batch: &Batch) -> Result<Vec<i64>, Error> {
        match self {
            Self::Done => store::complete(home, &batch.done).await,
            Self::Returned => store::give_back(home, &batch.returned).await,
            Self::Dying => store::bury(home, &batch.dying).await,
        }
    }
}

/// Tries until it is written, for as long as the runner runs: each statement changes only what is still ours, so once more does no
/// harm. What cannot be written is left to whoever takes over when the lease ends.
async fn surely(shared: &Shared, last: &CancellationToken, batch: &Batch, part: Part) -> Vec<i64> {
    loop {
        let db = shared
            .clusters
            .db(Instant::now() + shared.config.patience());
        match part.write(&db.write(), batch).await {
            Ok(ours) => return ours,
            Err(error) if error.is_transient() && !last.is_cancelled() => {
                tracing::warn!(%error, "it cannot be written down yet what became of jobs");
                last.run_until_cancelled(sleep(shared.config.poll_pause()))
                    .await;
            }
            Err(error) => {
                tracing::error!(%error, "it cannot be written down what became of jobs");
                return Vec::new();
            }
        }
    }
}
