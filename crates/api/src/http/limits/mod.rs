//! Rate limits: how much a principal may ask of all processes together. A principal is the user of a session that lives, or
//! else the client's address; what is asked is a read or a write.
//!
//! An address is counted in this process and told to Redis in parcels, so that an anonymous read seldom waits for it and an
//! answer from memory stays one. A user is counted by the very round trip that finds the session, and the address has its
//! count back; so cookies that are made up are the address's affair. Whoever is known to be over a limit is refused
//! without I/O. Without Redis each process keeps to its share of the limit.

mod config;
mod fields;
mod layer;
mod metrics;

#[cfg(test)]
mod http_tests;

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use data::{
    rates::{Pace, Rates, Taken},
    redis::Redis,
    sessions::{self, SessionId},
};
use http::{HeaderMap, HeaderValue};
use prometheus_client::registry::Registry;
use resilience::{
    Asked, Criticality, Decision, Keyed, Limit, Quota, Rate, Reach, Standing, Verdict,
};
use tokio::time::Instant;

use self::metrics::Metrics;
pub use self::{config::Config, fields::whole_seconds, layer::LimitLayer};
use super::{ApiError, ApiResult, client_address::ClientAddress};

/// What is limited. Few, because each is a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    AddressRead,
    AddressWrite,
    UserRead,
    UserWrite,
}

impl Policy {
    const ALL: [Self; 4] = [
        Self::AddressRead,
        Self::AddressWrite,
        Self::UserRead,
        Self::UserWrite,
    ];

    /// An expendable write counts as a read: it must not use up what its sender signs in with.
    fn of_address(is_read: bool, route: Criticality) -> Self {
        match is_read || route == Criticality::Sheddable {
            true => Self::AddressRead,
            false => Self::AddressWrite,
        }
    }

    /// The same kind of request, of a user.
    fn of_user(self) -> Self {
        match self {
            Self::AddressRead | Self::UserRead => Self::UserRead,
            Self::AddressWrite | Self::UserWrite => Self::UserWrite,
        }
    }

    /// Its name in headers, problems and keys.
    fn name(self) -> &'static str {
        match self {
            Self::AddressRead => "address-read",
            Self::AddressWrite => "address-write",
            Self::UserRead => "user-read",
            Self::UserWrite => "user-write",
        }
    }
}

/// Counts every principal. A clone is cheap and counts the same.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    /// By `Policy`.
    limits: [Limit; 4],
    /// By `Policy`: what `RateLimit-Policy` says of it, which is always the same.
    fields: [HeaderValue; 4],
    rates: Rates,
    addresses: Keyed<(IpAddr, Policy), Quota>,
    /// Sessions whose user is over a limit, until when.
    refused: Keyed<(SessionId, Policy), Instant>,
    metrics: Metrics,
    /// Whether it was said that an address may be a proxy's.
    suspected: AtomicBool,
}

impl Limits {
    pub fn new(config: &Config, redis: Redis, registry: &mut Registry) -> Self {
        let limits = Policy::ALL.map(|policy| Limit {
            rate: config.rate(policy),
            processes: config.instances_expected,
        });
        Self(Arc::new(Inner {
            fields: Policy::ALL.map(|policy| fields::of_policy(policy, &config.rate(policy))),
            limits,
            rates: Rates::new(redis),
            addresses: Keyed::new(config.keys_max),
            refused: Keyed::new(config.keys_max),
            metrics: Metrics::register(registry),
            suspected: AtomicBool::new(false),
        }))
    }

    fn limit(&self, policy: Policy) -> &Limit {
        &self.0.limits[policy as usize]
    }

    fn rate(&self, policy: Policy) -> &Rate {
        &self.limit(policy).rate
    }

    /// Takes one of an address's quota. What is perhaps a user's may be given back, so Redis is not told of it yet.
    async fn take_of_address(
        &self,
        client: ClientAddress,
        policy: Policy,
        is_perhaps_a_users: bool,
        deadline: Instant,
    ) -> Verdict {
        let key = (client.network(), policy);
        let reach = if !self.0.rates.is_there() {
            self.0.metrics.alone(policy);
            Reach::Alone
        } else if is_perhaps_a_users {
            Reach::Process
        } else {
            Reach::Store
        };
        let limit = self.limit(policy);
        match self.quota(key, |now, quota| quota.take(now, limit, reach)) {
            Decision::Ask(asked) => self.ask(key, asked, deadline).await,
            Decision::Made(verdict) => verdict,
        }
    }

    async fn ask(&self, key: (IpAddr, Policy), asked: Asked, deadline: Instant) -> Verdict {
        let (network, policy) = key;
        let limit = self.limit(policy);
        let name = (policy.name(), &*network.to_string());
        let pace = pace(&limit.rate);
        let answer = self.0.rates.take(name, pace, asked.given, deadline).await;
        self.quota(key, |now, quota| match answer {
            Ok(Taken { granted, whole_in }) => quota.told(now, limit, granted, whole_in),
            Err(error) => {
                tracing::debug!(%error, "decided without the shared limit");
                self.0.metrics.alone(policy);
                quota.untold(now, limit, asked)
            }
        })
    }

    fn quota<R>(&self, key: (IpAddr, Policy), act: impl FnOnce(Instant, &mut Quota) -> R) -> R {
        let now = Instant::now();
        self.0
            .addresses
            .with(key, || Quota::new(now), |quota| act(now, quota))
    }

    /// How long the session's user is still over the limit, as far as this process knows.
    fn refused_for(&self, id: &SessionId, policy: Policy) -> Option<Duration> {
        let now = Instant::now();
        let until = self.0.refused.get(&(id.clone(), policy))?;
        until.checked_duration_since(now)
    }

    /// Says where the client stands.
    fn tell(&self, headers: &mut HeaderMap, policy: Policy, standing: Standing) {
        let of_policy = &self.0.fields[policy as usize];
        fields::write(headers, of_policy, policy, standing);
    }

    /// Says once that a refused address speaks for others: nobody has told us of that proxy, and all its clients are one.
    fn suspect(&self, client: ClientAddress) {
        if !self.0.suspected.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                client.address = %client.0,
                "a refused address says that it forwards; if it is a proxy of ours, set http.trusted_hops"
            );
        }
    }

    /// Refuses a request that is over the limit, and counts it.
    fn refusal(&self, policy: Policy, wait: Duration) -> ApiError {
        self.0.metrics.refused(policy);
        // Spread, or all who were refused at once would be back at once.
        let spread = self.rate(policy).window.mul_f64(fastrand::f64() / 10.0);
        ApiError::TooMany {
            policy: policy.name(),
            retry_after: wait + spread,
        }
    }
}

/// A request that brought a session's cookie, between its edge and the look-up of the session. In the request's extensions.
#[derive(Clone)]
pub struct Ticket(Arc<Claim>);

struct Claim {
    limits: Limits,
    id: SessionId,
    client: ClientAddress,
    address_policy: Policy,
    /// Set when the session was found.
    user: OnceLock<Standing>,
}

impl Ticket {
    fn policy(&self) -> Policy {
        self.0.address_policy.of_user()
    }

    /// What the look-up of the session is to take.
    pub fn quota(&self) -> sessions::Quota<'static> {
        let policy = self.policy();
        sessions::Quota {
            policy: policy.name(),
            pace: pace(self.0.limits.rate(policy)),
        }
    }

    /// The look-up found the session: the request is its user's, and no more its address's.
    ///
    /// # Errors
    /// [`ApiError::TooMany`] when the user is over the limit.
    pub fn settle(&self, taken: &Taken) -> ApiResult<()> {
        let Claim {
            limits,
            client,
            address_policy,
            ..
        } = &*self.0;
        let address = (client.network(), *address_policy);
        limits.quota(address, |_, quota| {
            quota.give_back(limits.limit(*address_policy));
        });
        let policy = self.policy();
        let standing = limits.rate(policy).standing(taken.whole_in);
        // A second look-up of the same request tells the same.
        let _ = self.0.user.set(standing);
        if taken.granted {
            return Ok(());
        }
        let until = Instant::now() + standing.wait;
        let key = (self.0.id.clone(), policy);
        limits.0.refused.with(key, || until, |known| *known = until);
        Err(limits.refusal(policy, standing.wait))
    }
}

fn pace(rate: &Rate) -> Pace {
    Pace {
        interval: rate.interval(),
        window: rate.window,
    }
}
