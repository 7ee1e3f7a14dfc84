//! Enqueuing: a row in the caller's transaction, and word to those who run jobs when it commits.

use std::time::Duration;

use data::Error;
use data::postgres::{Place, Tx};
use serde::ser::Error as _;
use time::OffsetDateTime;

use crate::context::{Context, Origin};
use crate::job::Job;
use crate::store;

/// Bytes of a payload as JSON. It names what the job is about; the rest is looked up when it runs.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// A job that is to be enqueued, with what is special about it.
#[derive(Debug)]
pub struct NewJob {
    pub(crate) kind: &'static str,
    pub(crate) version: i16,
    pub(crate) payload: Result<String, serde_json::Error>,
    pub(crate) unique_key: Option<String>,
    pub(crate) run_at: Option<OffsetDateTime>,
    pub(crate) delay: Duration,
    pub(crate) until: Option<OffsetDateTime>,
    pub(crate) origin: Origin,
}

impl<J: Job> From<&J> for NewJob {
    fn from(job: &J) -> Self {
        Self::of(job)
    }
}

impl NewJob {
    /// To be run as soon as possible.
    pub fn of<J: Job>(job: &J) -> Self {
        let payload = serde_json::to_string(job).and_then(|json| match json.len() {
            ..=PAYLOAD_BYTES_MAX => Ok(json),
            bytes => Err(serde_json::Error::custom(format_args!(
                "a payload has at most {PAYLOAD_BYTES_MAX} bytes, and not {bytes}"
            ))),
        });
        Self {
            kind: J::KIND,
            version: J::VERSION,
            payload,
            unique_key: None,
            run_at: None,
            delay: Duration::ZERO,
            until: None,
            origin: Origin::default(),
        }
    }

    /// Not before this time.
    #[must_use]
    pub fn run_at(mut self, at: OffsetDateTime) -> Self {
        self.run_at = Some(at);
        self
    }

    /// Not before this long from now.
    #[must_use]
    pub fn run_in(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Not if there is one of this kind with the same key (1 to 200 characters) already; that one may be running.
    #[must_use]
    pub fn unique(mut self, key: impl Into<String>) -> Self {
        self.unique_key = Some(key.into());
        self
    }

    /// Not after this time: from then on it is dead.
    #[must_use]
    pub fn until(mut self, end: OffsetDateTime) -> Self {
        self.until = Some(end);
        self
    }

    /// On somebody's behalf.
    #[must_use]
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }
}

/// Enqueues a job, if the transaction commits. Its id; none when there is one with the same unique key.
///
/// # Errors
/// `NotAtHome` on another cluster; `Encoding` for a payload that cannot be kept; as any statement of a transaction.
pub async fn enqueue<P: Place>(
    tx: &mut Tx<P>,
    job: impl Into<NewJob>,
) -> Result<Option<i64>, Error> {
    Ok(enqueue_all(tx, [job]).await?.pop())
}

/// Enqueues jobs with one statement, whose size the caller bounds. The ids of those that were.
///
/// # Errors
/// As for [`enqueue`].
pub async fn enqueue_all<P: Place>(
    tx: &mut Tx<P>,
    jobs: impl IntoIterator<Item = impl Into<NewJob>>,
) -> Result<Vec<i64>, Error> {
    tx.check_at_home()?;
    let seen = tx.seen();
    let mut rows = store::NewRows::default();
    for job in jobs {
        let job: NewJob = job.into();
        let context = Context::new(job.origin, &seen);
        rows.kinds.push(job.kind);
        rows.versions.push(job.version);
        rows.payloads.push(job.payload.map_err(encoding)?);
        rows.unique_keys.push(job.unique_key);
        rows.run_ats.push(job.run_at);
        rows.delays_s.push(job.delay.as_secs_f64());
        rows.untils.push(job.until);
        let context = serde_json::to_string(&context);
        rows.contexts.push(context.map_err(encoding)?);
    }
    store::insert(tx, &rows).await
}

fn encoding(error: serde_json::Error) -> Error {
    Error::Encoding(std::sync::Arc::new(error))
}
