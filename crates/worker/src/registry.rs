//! The kinds of jobs that a process can run, and what runs them.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use resilience::Criticality;
use time::OffsetDateTime;
use tracing::Span;

use crate::context::Origin;
use crate::enqueue::NewJob;
use crate::job::{Failure, Job, Options, Outcome};
use crate::running::{Common, Running};
use crate::schedule::{Schedule, When};

/// See the module.
pub struct Registry {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) span: SpanOf,
}

/// One kind.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) version: i16,
    pub(crate) options: Options,
    pub(crate) run: Run,
}

/// Reads a payload of some version, and does what it asks for.
type Run = Arc<dyn Fn(i16, serde_json::Value, Common) -> Attempt + Send + Sync>;

type Attempt = BoxFuture<'static, Result<Outcome, Failed>>;

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The payload is none.
    Unreadable(Failure),
    /// As the handler says.
    Handler(Failure),
}

/// A job that is about to be run, for whoever makes its span.
#[derive(Clone, Copy, Debug)]
pub struct Begun<'a> {
    /// Its number.
    pub id: i64,
    /// Its kind.
    pub kind: &'static str,
    /// How much it matters.
    pub criticality: Criticality,
    /// From 1 on.
    pub attempt: i32,
    /// Who enqueued it.
    pub origin: &'a Origin,
}

type SpanOf = Box<dyn Fn(&Begun<'_>) -> Span + Send + Sync>;

impl Default for Registry {
    /// Without kinds, and with spans that belong to no trace.
    fn default() -> Self {
        Self {
            kinds: Vec::new(),
            schedules: Vec::new(),
            span: Box::new(|begun| {
                let Begun {
                    id, kind, attempt, ..
                } = begun;
                tracing::error_span!("job", job.id = id, job.kind = kind, job.attempt = attempt)
            }),
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("kinds", &self.kinds)
            .field("schedules", &self.schedules)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Has jobs of a kind done by `handler`. What it needs, it captures. It may be run more than once for a job, and is dropped where it waits when it
    /// runs out of time.
    ///
    /// # Panics
    /// When there is a handler for the kind already.
    pub fn add<J, F, A>(&mut self, handler: F) -> &mut Self
    where
        J: Job,
        F: Fn(Running<J>) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Outcome, Failure>> + Send + 'static,
    {
        let is_new = self.kinds.iter().all(|kind| kind.name != J::KIND);
        assert!(is_new, "two handlers for jobs of the kind {}", J::KIND);
        let handler = Arc::new(handler);
        let run: Run = Arc::new(move |version, payload, common| {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let job = read::<J>(version, payload).map_err(Failed::Unreadable)?;
                let running = Running { job, common };
                handler(running).await.map_err(Failed::Handler)
            })
        });
        self.kinds.push(Kind {
            name: J::KIND,
            version: J::VERSION,
            options: J::OPTIONS,
            run,
        });
        self
    }

    /// Has a job enqueued at each slot, by one of the processes; `job` is given the slot. After a time in which nobody ran, only
    /// the latest slot is made up for; and none while the job of an earlier one is there still.
    ///
    /// # Panics
    /// When there is a schedule of this name (1 to 64 characters) already.
    pub fn schedule<J: Job>(
        &mut self,
        name: &'static str,
        when: When,
        job: fn(OffsetDateTime) -> J,
    ) -> &mut Self {
        let is_new = self.schedules.iter().all(|schedule| schedule.name != name);
        assert!(is_new, "two schedules are called {name}");
        self.schedules.push(Schedule {
            name,
            when,
            job: Box::new(move |slot| NewJob::of(&job(slot))),
        });
        self
    }

    /// Has the spans of jobs made by `span`, which knows how to continue their traces.
    pub fn spans(
        &mut self,
        span: impl Fn(&Begun<'_>) -> Span + Send + Sync + 'static,
    ) -> &mut Self {
        self.span = Box::new(span);
        self
    }
}

fn read<J: Job>(version: i16, payload: serde_json::Value) -> Result<J, Failure> {
    let payload = match version == J::VERSION {
        true => payload,
        false => J::upgrade(version, payload)?,
    };
    Ok(serde_json::from_value(payload)?)
}
