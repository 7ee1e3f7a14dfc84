//! Admission: decides, before any work, who is worked for now, who waits a moment, and who is refused.
//!
//! How much is worked on at once, the limiter finds out. Within that each criticality is sure of a share of what it
//! needs, the rest goes to the most critical who want it, and in an overload no caller gets more than its part. A
//! decision is a few comparisons under a lock that nobody holds for long; it asks nothing, and a refusal allocates nothing.

mod absence;
mod config;
mod gate;
mod limiter;
mod saturation;
mod tenants;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{
    hash::Hash,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

pub use self::{
    absence::{Absence, Absent},
    config::{Config, Shares},
    gate::Snapshot,
    limiter::Outcome,
};
use self::{
    gate::{Gate, Verdict, Visitor, Waiter},
    limiter::Sample,
};
use crate::Criticality;

/// See the module. Clones share everything.
#[derive(Clone, Debug)]
pub struct Admission {
    config: Arc<Config>,
    gate: Arc<Mutex<Gate>>,
}

/// Why a request is not worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As much is worked on as is worth it, and as many wait as may.
    #[error("there is no capacity")]
    Full,
    /// It waited, in vain.
    #[error("no capacity became free in time")]
    Waited,
    /// Its caller has its part of the capacity already.
    #[error("the caller has its part of the capacity")]
    Unfair,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Full, Self::Waited, Self::Unfair];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Waited => "waited",
            Self::Unfair => "unfair",
        }
    }
}

/// What [`Admission::enter`] decided.
#[derive(Debug)]
pub enum Entry {
    /// Work on it.
    Admitted(Permit),
    /// Wait for the decision.
    Queued(Queued),
    /// Refuse it.
    Refused(Refusal),
}

impl Admission {
    /// An admission that never works on more than `ceiling` at once.
    pub fn new(config: &Config, ceiling: usize) -> Self {
        Self {
            config: Arc::new(config.clone()),
            gate: Arc::new(Mutex::new(Gate::new(config, ceiling))),
        }
    }

    /// Asks for a request of `tenant` to be worked on. `kind` is the number of its kind of work, counted
    /// from 0: what takes about as long in calm.
    pub fn enter(&self, criticality: Criticality, kind: usize, tenant: impl Hash) -> Entry {
        let now = Instant::now();
        let mut gate = self.gate();
        let visitor = Visitor {
            criticality,
            kind,
            place: gate.place(criticality, tenant),
        };
        match gate.enter(now, visitor) {
            Verdict::Admitted => {
                drop(gate);
                Entry::Admitted(self.permit(now, visitor, false))
            }
            Verdict::Refused(refusal) => Entry::Refused(refusal),
            Verdict::Queued { until, answer } => {
                drop(gate);
                Entry::Queued(Queued {
                    admission: self.clone(),
                    criticality,
                    until,
                    answer,
                })
            }
        }
    }

    /// What it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether there was no room again and again, for as long as counts.
    pub fn is_overloaded(&self) -> bool {
        self.gate().is_overloaded_at_all(Instant::now())
    }

    /// How it stands.
    pub fn snapshot(&self) -> Snapshot {
        self.gate().snapshot(Instant::now())
    }

    fn permit(&self, begun: Instant, visitor: Visitor, has_waited: bool) -> Permit {
        Permit {
            admission: self.clone(),
            begun,
            visitor,
            has_waited,
            outcome: Outcome::Failed,
            absence: Absence::new(self.clone(), visitor),
        }
    }

    /// Lets in those who wait and for whom there is room now. The gate is not held while they are told: a permit that nobody
    /// takes any more comes back here.
    fn let_in(&self, waiters: Vec<Waiter>) {
        let now = Instant::now();
        for Waiter { visitor, answer } in waiters {
            // A waiter who has just left gives the permit back by dropping it.
            let _ = answer.send(self.permit(now, visitor, true));
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits. Dropping it gives up its place.
#[derive(Debug)]
pub struct Queued {
    admission: Admission,
    criticality: Criticality,
    until: Instant,
    answer: oneshot::Receiver<Permit>,
}

impl Queued {
    /// Waits for capacity, but for no more than a quarter of the time until `deadline`: the rest is for the work.
    ///
    /// # Errors
    /// When there was none in time.
    pub async fn admitted(self, deadline: Instant) -> Result<Permit, Refusal> {
        let now = Instant::now();
        let quarter = now + deadline.saturating_duration_since(now) / 4;
        match timeout_at(self.until.min(quarter), self.answer).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(self
                .admission
                .gate()
                .gave_up(Instant::now(), self.criticality)),
        }
    }
}

/// The right to work on one request, given back when dropped. One that is dropped without an outcome failed, or its
/// client went away.
#[derive(Debug)]
pub struct Permit {
    admission: Admission,
    begun: Instant,
    visitor: Visitor,
    has_waited: bool,
    outcome: Outcome,
    absence: Absence,
}

impl Permit {
    /// For whatever waits for other services on the request's behalf.
    pub fn absence(&self) -> Absence {
        self.absence.clone()
    }

    /// Gives it back and tells how the work ended.
    pub fn finish(mut self, outcome: Outcome) {
        // Its time may have gone by in the queue. If that lowered the limit, the queue would only become longer.
        self.outcome = match outcome {
            Outcome::TimedOut if self.has_waited => Outcome::Failed,
            outcome => outcome,
        };
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.begun);
        let sample = Sample {
            kind: self.visitor.kind,
            took: took.saturating_sub(self.absence.end()),
            outcome: mem::replace(&mut self.outcome, Outcome::Failed),
        };
        let waiters = self.admission.gate().leave(now, self.visitor, &sample);
        self.admission.let_in(waiters);
    }
}
