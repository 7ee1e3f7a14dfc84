//! What a kind of job is, and what may become of one.

use std::error::Error;
use std::time::Duration;

use resilience::Criticality;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Why an attempt failed: any error.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A kind of job. Its fields are the payload, which is kept as JSON: name things by their ids, for a payload may be days old when
/// it is read, and operators see it.
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// Its name in the table, in logs and in metrics. Another one is another kind: jobs under the old name are left lying.
    const KIND: &'static str;

    /// Of the payload; from 1 on. To be counted up with a change that older code cannot read, or that cannot read what older code
    /// has left.
    const VERSION: i16 = 1;

    /// How jobs of this kind are run.
    const OPTIONS: Options = Options::DEFAULT;

    /// Makes a payload of `version`, which is older than [`Self::VERSION`], one of today's.
    ///
    /// # Errors
    /// When that cannot be done; the job is then dead.
    fn upgrade(version: i16, payload: Value) -> Result<Value, Failure> {
        let _ = version;
        Ok(payload)
    }
}

/// How jobs of one kind are run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which go first.
    pub criticality: Criticality,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// After so many attempts that failed a job is dead.
    pub attempts_max: u16,
    /// How many may run at once in one process.
    pub at_once: usize,
}

impl Options {
    /// What most kinds do with.
    pub const DEFAULT: Self = Self {
        criticality: Criticality::Critical,
        timeout: Duration::from_secs(60),
        attempts_max: 15,
        at_once: usize::MAX,
    };
}

/// What became of an attempt that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The job is done.
    Done,
    /// It is too early: the job is to be run again after this time. Counts as no attempt.
    Snooze(Duration),
    /// It will never be done, for this reason: the job is dead at once.
    GiveUp(String),
}
