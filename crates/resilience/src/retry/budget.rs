//! How many retries all callers together may still make.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Earnings are kept for about so long, in seconds: a quiet hour must not pay for a storm.
const KEPT_SECONDS: f64 = 10.0;

/// The least that is kept, so that a small share adds up to a whole retry.
const KEPT_MIN: f64 = 10.0;

#[derive(Debug)]
pub(super) struct Budget {
    ratio: f64,
    per_second: f64,
    account: Mutex<Account>,
}

#[derive(Debug)]
struct Account {
    /// Retries that may be made now.
    balance: f64,
    /// Until when the earnings per second are in the balance.
    until: Instant,
}

impl Budget {
    pub(super) fn new(ratio: f64, per_second: f64) -> Self {
        Self {
            ratio,
            per_second,
            account: Mutex::new(Account {
                balance: per_second,
                until: Instant::now(),
            }),
        }
    }

    /// Books a call.
    pub(super) fn earn(&self) {
        let mut account = self.settled();
        account.balance = (account.balance + self.ratio).min(self.kept_max());
    }

    /// Takes one retry, if there is one.
    pub(super) fn spend(&self) -> bool {
        let mut account = self.settled();
        let is_enough = account.balance >= 1.0;
        if is_enough {
            account.balance -= 1.0;
        }
        is_enough
    }

    /// The most that can ever be spent at once.
    pub(super) fn kept_max(&self) -> f64 {
        KEPT_MIN.max(self.per_second * KEPT_SECONDS)
    }

    fn settled(&self) -> MutexGuard<'_, Account> {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earned = (now - account.until).as_secs_f64() * self.per_second;
        account.balance = (account.balance + earned).min(self.kept_max());
        account.until = now;
        account
    }
}
