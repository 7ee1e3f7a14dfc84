//! Attempts to sign in: a few are free for each account and each address, and each further one has to wait twice as long.
//!
//! They are counted before anything is looked up or hashed, so an account that does not exist is answered like any other.
//! They are counted in this process as well as in Redis: without Redis the wait is no shorter for whoever reaches the
//! same process. No wait is without end, and no session ends for one.

use std::{net::IpAddr, sync::Arc, time::Duration};

use data::{
    attempts::{Attempts, Counted},
    redis::Redis,
};
use garde::Validate;
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use resilience::{Keyed, Steps, ranges::between};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::http::{ApiError, ApiResult, client_address::ClientAddress};

const TENTH: Duration = Duration::from_millis(100);
const DAY: Duration = Duration::from_secs(86_400);

/// How many attempts are free, and how long further ones wait: `sessions.throttle.*`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Attempts at one account without a wait.
    #[garde(range(min = 1, max = 1_000_000))]
    pub account_free: u32,
    /// The longest wait for one account.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(TENTH, DAY)))]
    pub account_delay_max: Duration,
    /// Attempts from one address without a wait. Many people may share one, and a right attempt is not counted.
    #[garde(range(min = 1, max = 1_000_000))]
    pub address_free: u32,
    /// The longest wait for one address. Short, because it is everybody's behind it.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(TENTH, DAY)))]
    pub address_delay_max: Duration,
    /// The first wait, which doubles with each attempt.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(TENTH, DAY)))]
    pub delay: Duration,
    /// After so long without an attempt all are forgotten.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(TENTH, DAY)))]
    pub forget_after: Duration,
    /// Accounts, and addresses, that this process keeps count of; beyond that those tried least lately are forgotten.
    #[garde(range(min = 1_000, max = 10_000_000))]
    pub keys_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            account_free: 5,
            account_delay_max: Duration::from_secs(15 * 60),
            address_free: 50,
            address_delay_max: Duration::from_secs(60),
            delay: Duration::from_secs(1),
            forget_after: Duration::from_secs(60 * 60),
            keys_max: 100_000,
        }
    }
}

/// Counts the attempts to sign in. A clone is cheap and counts the same.
#[derive(Clone)]
pub struct Throttle(Arc<Inner>);

struct Inner {
    attempts: Attempts,
    account: Steps,
    address: Steps,
    accounts: Keyed<Account, resilience::Throttle>,
    addresses: Keyed<IpAddr, resilience::Throttle>,
    refused: Counter,
}

/// A hash of the email, because a key is no place for one.
type Account = [u8; 32];

/// An attempt that was counted and may be made.
pub struct Attempt {
    throttle: Throttle,
    account: Account,
    network: IpAddr,
    deadline: Instant,
}

impl Throttle {
    pub fn new(config: &Config, redis: Redis, registry: &mut Registry) -> Self {
        let steps = |free, delay_max| Steps {
            free,
            delay: config.delay,
            delay_max,
            forget_after: config.forget_after,
        };
        let refused = Counter::default();
        registry.register(
            "login_throttled_attempts",
            "Attempts to sign in that were refused because of those before them",
            refused.clone(),
        );
        Self(Arc::new(Inner {
            attempts: Attempts::new(redis),
            account: steps(config.account_free, config.account_delay_max),
            address: steps(config.address_free, config.address_delay_max),
            accounts: Keyed::new(config.keys_max),
            addresses: Keyed::new(config.keys_max),
            refused,
        }))
    }

    /// Counts an attempt before it is made.
    ///
    /// # Errors
    /// [`ApiError::TooMany`] when it has to wait.
    pub async fn begin(
        &self,
        email: &str,
        client: ClientAddress,
        deadline: Instant,
    ) -> ApiResult<Attempt> {
        let attempt = Attempt {
            throttle: self.clone(),
            account: Sha256::digest(email.to_lowercase()).into(),
            network: client.network(),
            deadline,
        };
        let mut wait = attempt.begin_here();
        if wait.is_zero() {
            wait = attempt.begin_everywhere().await;
        }
        if wait.is_zero() {
            return Ok(attempt);
        }
        self.0.refused.inc();
        tracing::warn!(target: "audit", event = "login_throttled", client.address = %client.0);
        // Spread, or all who guess at one account would be back at once.
        let spread = wait.mul_f64(fastrand::f64() / 10.0);
        Err(ApiError::TooMany {
            policy: "login",
            retry_after: wait + spread,
        })
    }
}

impl Attempt {
    /// What this process knows: how long the attempt has to wait.
    fn begin_here(&self) -> Duration {
        let Inner {
            account, address, ..
        } = &*self.throttle.0;
        // Whoever has to wait for the address is not counted against the account, which may be somebody else's.
        let wait = self.address(|now, state| state.wait(now));
        if !wait.is_zero() {
            return wait;
        }
        let wait = self.account(|now, state| state.begin(now, account));
        if !wait.is_zero() {
            return wait;
        }
        self.address(|now, state| state.begin(now, address))
    }

    /// What all processes know together. Without an answer it is as this process says.
    async fn begin_everywhere(&self) -> Duration {
        let (account, address) = self.names();
        let (account, address) = self.counted(&account, &address);
        let asked = self
            .throttle
            .0
            .attempts
            .begin(account, address, self.deadline);
        let [account, address] = match asked.await {
            Ok(waits) => waits,
            Err(error) => {
                tracing::debug!(%error, "an attempt to sign in is counted by this process alone");
                return Duration::ZERO;
            }
        };
        let wait = account.max(address);
        if !wait.is_zero() {
            let hold = |wait| {
                move |now, state: &mut resilience::Throttle| {
                    state.take_back();
                    state.hold(now, wait);
                }
            };
            self.account(hold(account));
            self.address(hold(address));
        }
        wait
    }

    /// The attempt was right: the account's are forgotten, and the address has one less.
    pub async fn was_right(self) {
        self.throttle.0.accounts.remove(&self.account);
        self.address(|_, state| state.take_back());
        let (account, address) = self.names();
        let (account, address) = self.counted(&account, &address);
        let told = self
            .throttle
            .0
            .attempts
            .was_right(account, address, self.deadline);
        if let Err(error) = told.await {
            // They are forgotten in time.
            tracing::debug!(%error, "a right attempt to sign in still counts in Redis");
        }
    }

    fn account<R>(&self, act: impl FnOnce(Instant, &mut resilience::Throttle) -> R) -> R {
        let (now, inner) = (Instant::now(), &self.throttle.0);
        let fresh = || resilience::Throttle::new(now);
        inner
            .accounts
            .with(self.account, fresh, |state| act(now, state))
    }

    fn address<R>(&self, act: impl FnOnce(Instant, &mut resilience::Throttle) -> R) -> R {
        let (now, inner) = (Instant::now(), &self.throttle.0);
        let fresh = || resilience::Throttle::new(now);
        inner
            .addresses
            .with(self.network, fresh, |state| act(now, state))
    }

    fn names(&self) -> (String, String) {
        let account = self.account.map(|byte| format!("{byte:02x}")).concat();
        (account, self.network.to_string())
    }

    fn counted<'a>(&self, account: &'a str, address: &'a str) -> (Counted<'a>, Counted<'a>) {
        let counted = |kind, name, steps: &Steps| Counted {
            name: (kind, name),
            free: steps.free,
            delay: steps.delay,
            delay_max: steps.delay_max,
            forget_after: steps.forget_after,
        };
        let inner = &self.throttle.0;
        (
            counted("login-account", account, &inner.account),
            counted("login-address", address, &inner.address),
        )
    }
}
