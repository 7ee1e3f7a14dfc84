//! One attempt at a job, from its claim to what became of it.

use std::any::Any;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use data::postgres::Positions;
use futures::FutureExt as _;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, Span};

use crate::context::Context;
use crate::held::Hold;
use crate::job::{Failure, Outcome};
use crate::registry::{Begun, Failed, Kind};
use crate::runner::Shared;
use crate::running::Common;
use crate::settling::{Ended, Reason, Verdict};
use crate::store::Claimed;

/// Bytes of an error's text that are kept.
const ERROR_BYTES_MAX: usize = 1000;

/// Runs a job, and hands over what became of it.
pub(crate) async fn run(shared: &Shared, kind: usize, job: Claimed, hold: Hold, seen: &Positions) {
    let (key, attempts) = ((job.id, job.fence), job.attempts);
    let name = shared.registry.kinds[kind].name;
    shared.metrics.begun(name, job.waited_s);
    let begun = Instant::now();
    let verdict = attempt(shared, &shared.registry.kinds[kind], job, hold, seen).await;
    shared.metrics.ran(name, begun.elapsed());
    shared.held.ended(key);
    let ended = Ended {
        key,
        kind: name,
        attempts,
        verdict,
    };
    // Fails only after the runner has ended, when the lease will end too.
    let _ = shared.ended.send(ended).await;
}

async fn attempt(
    shared: &Shared,
    kind: &Kind,
    job: Claimed,
    hold: Hold,
    seen: &Positions,
) -> Verdict {
    if shared.stopping.is_cancelled() {
        return Verdict::Released;
    }
    let context: Context = serde_json::from_value(job.context).unwrap_or_default();
    let span = (shared.registry.span)(&Begun {
        id: job.id,
        kind: kind.name,
        criticality: kind.options.criticality,
        attempt: job.attempts,
        origin: &context.origin,
    });
    let left = job
        .left_s
        .map(|left| Duration::try_from_secs_f64(left).unwrap_or_default());
    let limit = kind.options.timeout.min(left.unwrap_or(Duration::MAX));
    let verdict = if limit.is_zero() {
        Verdict::Dead(Reason::Expired, None)
    } else if job.attempts > i32::from(kind.options.attempts_max) {
        Verdict::Dead(Reason::Abandoned, None)
    } else {
        let deadline = Instant::now() + limit;
        let common = Common {
            key: (job.id, job.fence),
            attempt: job.attempts,
            consistency: context.consistency(seen),
            origin: context.origin,
            clusters: shared.clusters.clone(),
            deadline,
            hold: hold.clone(),
            stopping: shared.stopping.clone(),
        };
        let work = AssertUnwindSafe((kind.run)(job.version, job.payload, common)).catch_unwind();
        tokio::select! {
            biased;
            () = hold.lost.cancelled() => Verdict::Lost,
            () = shared.given_up.cancelled() => Verdict::Released,
            ended = timeout_at(deadline, work.instrument(span.clone())) => match ended {
                Ok(Ok(result)) => verdict(result, &hold),
                Ok(Err(panic)) => Verdict::Failed(format!("panicked: {}", said(&*panic))),
                Err(_) => Verdict::Failed(format!("took longer than {limit:?}")),
            },
        }
    };
    let verdict = verdict.after(job.attempts, kind.options.attempts_max);
    note(&span, &verdict);
    verdict
}

fn verdict(result: Result<Outcome, Failed>, hold: &Hold) -> Verdict {
    match result {
        Ok(Outcome::Done) if hold.is_finishing() => Verdict::Finished,
        Ok(Outcome::Done) => Verdict::Done,
        Ok(Outcome::Snooze(time)) => Verdict::Snoozed(time),
        Ok(Outcome::GiveUp(reason)) => Verdict::Dead(Reason::GaveUp, Some(cut(reason))),
        Err(Failed::Unreadable(error)) => Verdict::Dead(Reason::Unreadable, Some(chain(&error))),
        Err(Failed::Handler(error)) if is_lost(&error) => Verdict::Lost,
        Err(Failed::Handler(error)) => Verdict::Failed(chain(&error)),
    }
}

fn is_lost(error: &Failure) -> bool {
    matches!(error.downcast_ref(), Some(data::Error::LeaseLost))
}

/// One line for what did not go well, in the job's span.
fn note(span: &Span, verdict: &Verdict) {
    let _entered = span.enter();
    match verdict {
        Verdict::Done | Verdict::Finished | Verdict::Snoozed(_) => {
            return tracing::debug!(outcome = verdict.as_str(), "job ended");
        }
        Verdict::Released => tracing::info!("job given back: the process ends"),
        Verdict::Lost => tracing::warn!("job lost: it was taken over or cancelled"),
        Verdict::Failed(error) => {
            tracing::warn!(error, "job failed; it will be tried again");
        }
        Verdict::Dead(reason, error) => {
            tracing::error!(reason = reason.as_str(), error, "job is dead");
        }
    }
    span.record("otel.status_code", "ERROR");
}

/// An error with its causes.
fn chain(error: &Failure) -> String {
    let mut text = error.to_string();
    let mut cause: Option<&dyn Error> = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    cut(text)
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
    // Postgres keeps none in a text.
    text.replace('\0', "")
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    cut(text.unwrap_or_else(|| "without a word".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the mail was not sent")]
    struct Unsent(#[source] std::io::Error);

    #[test]
    fn an_error_is_kept_with_its_causes_and_no_longer_than_it_may_be() {
        let cause = std::io::Error::other("nul\0 and é".repeat(200));

        let text = chain(&(Box::new(Unsent(cause)) as Failure));

        assert!(
            text.starts_with("the mail was not sent: nul and é"),
            "{text}"
        );
        assert!(
            text.len() <= ERROR_BYTES_MAX && !text.contains('\0'),
            "{text}"
        );
    }
}
