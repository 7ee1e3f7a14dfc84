//! All sockets of the process: how many there are of whom, whose session has ended, and when each is closed at the end.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use data::sessions::{SessionId, Sessions};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    config::Config,
    metrics::{Kind, Metrics},
};
use crate::http::{
    ApiError, ApiResult,
    drain::{Drain, Phase},
    envelope::Tenant,
    session::Session,
};

/// Sessions that one question to Redis is about.
const SESSIONS_AT_ONCE: usize = 500;
/// How long the answer may take, beside what `redis.command_timeout` says.
const CHECK_WITHIN: Duration = Duration::from_secs(5);
/// When a client that has as many sockets as it may is asked to try again. One that it has lost may be counted until its silence is
/// noticed.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// A clone is the same sockets.
#[derive(Clone)]
pub(super) struct Sockets(Arc<Inner>);

struct Inner {
    config: Config,
    open: Mutex<Open>,
    drain: Drain,
    leaving: OnceLock<Leaving>,
    metrics: Metrics,
}

#[derive(Default)]
struct Open {
    sockets: usize,
    tenants: HashMap<Tenant, usize>,
    customers: HashMap<Uuid, usize>,
    sessions: HashMap<SessionId, OfSession>,
}

/// The sockets of one session.
#[derive(Default)]
struct OfSession {
    sockets: usize,
    ended: CancellationToken,
}

/// The end of all sockets, one after the other.
struct Leaving {
    since: Instant,
    sockets: usize,
    next: AtomicUsize,
}

impl Sockets {
    pub(super) fn new(config: &Config, drain: Drain, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            config: config.clone(),
            open: Mutex::default(),
            drain,
            leaving: OnceLock::new(),
            metrics,
        }))
    }

    /// Makes place for a socket, if there is any.
    pub(super) fn enter(
        &self,
        kind: Kind,
        tenant: Tenant,
        session: Option<&Session>,
    ) -> ApiResult<Place> {
        let config = &self.0.config;
        let mut open = self.0.lock();
        if open.sockets >= config.sockets_max {
            return Err(ApiError::busy());
        }
        let count = |count: Option<&usize>| count.copied().unwrap_or_default();
        if count(open.tenants.get(&tenant)) >= config.tenant_sockets_max {
            return Err(too_many("live-tenant"));
        }
        if let Some(session) = session
            && count(open.customers.get(&session.user_id)) >= config.customer_sockets_max
        {
            return Err(too_many("live-customer"));
        }
        open.sockets += 1;
        *open.tenants.entry(tenant.clone()).or_default() += 1;
        let customer = session.map(|session| {
            *open.customers.entry(session.user_id).or_default() += 1;
            let of_session = open.sessions.entry(session.id.clone()).or_default();
            of_session.sockets += 1;
            Customer {
                id: session.user_id,
                session: session.id.clone(),
                ended: of_session.ended.clone(),
            }
        });
        drop(open);
        self.0.metrics.opened(kind);
        Ok(Place {
            sockets: self.clone(),
            kind,
            tenant,
            customer,
        })
    }

    /// Closes the sockets of sessions that have ended, for ever. While nobody knows which have, all stay open: no session can be ended
    /// meanwhile either.
    pub(super) async fn check_sessions(&self, sessions: &Sessions) {
        let mut ticks = interval(self.0.config.session_check_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let ids: Vec<_> = self.0.lock().sessions.keys().cloned().collect();
            for ids in ids.chunks(SESSIONS_AT_ONCE) {
                let deadline = Instant::now() + CHECK_WITHIN;
                match sessions.living(ids, deadline).await {
                    Ok(living) => self.close_ended(ids, &living),
                    Err(error) => {
                        tracing::debug!(%error, "nobody knows which sessions have ended");
                        break;
                    }
                }
            }
        }
    }

    fn close_ended(&self, ids: &[SessionId], living: &[bool]) {
        let open = self.0.lock();
        for (id, lives) in ids.iter().zip(living) {
            if !lives && let Some(of_session) = open.sessions.get(id) {
                of_session.ended.cancel();
            }
        }
    }

    /// Waits for the moment at which this socket is to be closed because the process ends. All of them come one after the other,
    /// evenly over the window, so that their clients do not come back all at once.
    pub(super) async fn time_to_leave(&self) {
        self.0.drain.reached(Phase::Closing).await;
        let leaving = self.0.leaving.get_or_init(|| Leaving {
            since: Instant::now(),
            sockets: self.0.lock().sockets.max(1),
            next: AtomicUsize::new(0),
        });
        let turn = leaving.next.fetch_add(1, Ordering::Relaxed);
        // Whoever came too late to be counted leaves at any time.
        let share = match turn < leaving.sockets {
            true => (turn as f64 + fastrand::f64()) / leaving.sockets as f64,
            false => fastrand::f64(),
        };
        sleep_until(leaving.since + self.0.config.drain_window.mul_f64(share)).await;
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many(policy: &'static str) -> ApiError {
    ApiError::TooMany {
        policy,
        retry_after: TRY_AGAIN,
    }
}

/// A socket's place among all, given back when it is dropped.
pub(super) struct Place {
    sockets: Sockets,
    kind: Kind,
    tenant: Tenant,
    customer: Option<Customer>,
}

/// Whose socket it is.
struct Customer {
    id: Uuid,
    session: SessionId,
    ended: CancellationToken,
}

impl Place {
    /// Waits until the session has ended that the socket was opened with. Without one, for ever.
    pub(super) async fn session_ended(&self) {
        match &self.customer {
            Some(customer) => customer.ended.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sockets.0.lock();
        open.sockets -= 1;
        give_back(&mut open.tenants, &self.tenant);
        if let Some(customer) = &self.customer {
            give_back(&mut open.customers, &customer.id);
            if let Some(of_session) = open.sessions.get_mut(&customer.session) {
                of_session.sockets -= 1;
                if of_session.sockets == 0 {
                    open.sessions.remove(&customer.session);
                }
            }
        }
        drop(open);
        self.sockets.0.metrics.ended(self.kind);
    }
}

fn give_back<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn sockets(config: &Config) -> (Sockets, Drain) {
        let drain = Drain::default();
        let metrics = Metrics::register(&mut Registry::default());
        (Sockets::new(config, drain.clone(), metrics), drain)
    }

    fn tenant(number: u8) -> Tenant {
        Tenant::Address([10, 0, 0, number].into())
    }

    #[test]
    fn no_tenant_and_no_process_has_more_than_it_may() {
        let (sockets, _) = sockets(&Config {
            sockets_max: 3,
            tenant_sockets_max: 2,
            ..Config::default()
        });
        let enter = |number| sockets.enter(Kind::WebSocket, tenant(number), None);

        let first = enter(1).unwrap();
        let _second = enter(1).unwrap();
        assert!(matches!(enter(1), Err(ApiError::TooMany { .. })));
        let _third = enter(2).unwrap();
        assert!(matches!(enter(3), Err(ApiError::Unavailable { .. })));

        drop(first);
        enter(1).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn all_leave_within_the_window_and_evenly() {
        const SOCKETS: usize = 1000;
        let (sockets, drain) = sockets(&Config {
            drain_window: Duration::from_secs(10),
            tenant_sockets_max: SOCKETS,
            ..Config::default()
        });
        let enter = |_| sockets.enter(Kind::WebSocket, tenant(1), None).unwrap();
        let _places: Vec<_> = (0..SOCKETS).map(enter).collect();
        let begun = Instant::now();

        drain.advance(Phase::Closing);
        let leave = (0..SOCKETS).map(async |_| {
            sockets.time_to_leave().await;
            begun.elapsed()
        });
        let left = futures::future::join_all(leave).await;

        let mut tenths = [0; 100];
        for at in left {
            let tenth = usize::try_from(at.as_millis() / 100).unwrap();
            tenths[tenth.min(99)] += 1;
        }
        let peak = tenths.iter().max().unwrap();
        println!(
            "at most {peak} of {SOCKETS} sockets leave in a tenth of a second, {} on average",
            SOCKETS / 100
        );
        assert!(*peak <= 15, "{tenths:?}");
    }
}
