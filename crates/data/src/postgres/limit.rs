//! The moment at which one attempt ends, and whether that is the request's own deadline or a setting of ours.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::failure::{Cause, Failure};

/// The end of an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    at: Instant,
    at_deadline: Cause,
}

impl Limit {
    /// The sooner of the request's deadline and `budget` from now.
    pub(super) fn new(deadline: Instant, budget: Duration) -> Self {
        Self {
            at: deadline,
            at_deadline: Cause::Deadline,
        }
        .within(budget)
    }

    /// `budget` from now, whatever the request's deadline.
    pub(super) fn after(budget: Duration) -> Self {
        Self {
            at: Instant::now() + budget,
            at_deadline: Cause::Timeout,
        }
    }

    /// The same limit, and at most `budget` from now.
    pub(super) fn within(self, budget: Duration) -> Self {
        let at = Instant::now() + budget;
        if at < self.at {
            Self {
                at,
                at_deadline: Cause::Timeout,
            }
        } else {
            self
        }
    }

    /// What is left of it. An error when nothing is, so that nothing is begun.
    pub(super) fn remaining(self) -> Result<Duration, Failure> {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(self.at_deadline.into())
        } else {
            Ok(left)
        }
    }

    /// Runs a future until the limit. The future is not polled at all when the limit has passed.
    pub(super) async fn bound<T>(
        self,
        future: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.remaining()?;
        timeout_at(self.at, future)
            .await
            .unwrap_or_else(|_| Err(self.at_deadline.into()))
    }
}
