//! What every request can reach, and the one place where it is built.

use std::{sync::Arc, time::Duration};

use axum::extract::FromRef;
use data::{
    cache::Cache,
    feed::{Feed, Hub},
    idempotency,
    postgres::{Clusters, Tokens},
    redis::Redis,
    sessions::Sessions,
};
use prometheus_client::registry::Registry;
use resilience::admission::Admission;
use tokio::time::sleep;

use crate::{
    features::{
        events::Events,
        live::{self, Live},
        orders::Payments,
        products::ProductCache,
        recommendations::Recommender,
        sessions::{Passwords, Throttle},
    },
    flags::Flags,
    http::{
        self,
        breakers::Breakers,
        consistency::Tokenizer,
        degraded::Degradations,
        drain::Drain,
        grpc,
        health::{Check, Health, PAYMENTS},
        limits::Limits,
        outbound::{self, Service},
        session::SessionCookie,
    },
    settings::Settings,
};

/// How far an answer may lag behind the background checks in what it says of them.
const NOTED_EVERY: Duration = Duration::from_millis(100);

/// Shared by all requests of the process. A clone is a handful of reference counts.
#[derive(Clone, FromRef)]
pub struct AppState {
    /// The public listener's limits.
    pub http: Arc<http::Config>,
    /// The gRPC listener's limits.
    pub grpc: Arc<grpc::Config>,
    /// The stage of the process and what its probes answer from.
    pub health: Arc<Health>,
    /// How far the public listener's shutdown has come.
    pub drain: Drain,
    /// What the service does without at the moment.
    pub degradations: Degradations,
    /// Who is worked for, and who is refused.
    pub admission: Admission,
    /// What is switched on.
    pub flags: Flags,
    /// Postgres, all of it; handlers take the extractor `Db`, which knows the request's deadline.
    pub clusters: Clusters,
    /// The shared connection to Redis.
    pub redis: Redis,
    /// How much each principal may ask.
    pub limits: Limits,
    /// How long keys are worked on and remembered.
    pub idempotency: Arc<idempotency::Config>,
    /// Both levels of the cache; features have their namespaces of it.
    pub cache: Cache,
    /// Who is signed in.
    pub sessions: Sessions,
    /// The cookie that says so.
    pub session_cookie: SessionCookie,
    /// Makes the next request see what this one wrote.
    pub tokenizer: Tokenizer,
    /// Compares passwords, a few at a time.
    pub passwords: Passwords,
    /// Makes who guesses them wait.
    pub throttle: Throttle,
    /// Products by id.
    pub products: ProductCache,
    /// What goes well with a product.
    pub recommender: Recommender,
    /// Who is paid for orders, if anybody is.
    pub payments: Option<Payments>,
    /// What clients say of what they do, until it is written.
    pub events: Events,
    /// Where it is said what has happened.
    pub feed: Feed,
    /// Who hears of it.
    pub live: Live,
}

impl AppState {
    /// Opens no connection and waits for nothing, so a service starts whatever its dependencies do.
    ///
    /// # Errors
    /// For URLs that settings from [`settings::load`] never hold, and when TLS to another service cannot be set up.
    pub fn new(settings: &Settings, registry: &mut Registry) -> anyhow::Result<Self> {
        let redis = Redis::new(&settings.redis, registry)?;
        let cache = Cache::new(&settings.cache, redis.clone(), registry);
        let clusters = Clusters::new(&settings.postgres, &settings.shards, registry)?;
        let sessions = Sessions::new(&settings.sessions.store, redis.clone());
        let breakers = Breakers::register(registry);
        for (dependency, breaker) in clusters.breakers().chain([redis.breaker()]) {
            breakers.add(dependency, breaker);
        }
        let outbound = outbound::Metrics::register(registry, &breakers);
        let flag_service = Service::new("ofrep", &settings.flags.ofrep, &outbound)?;
        let flags = Flags::new(&settings.flags, flag_service, registry);
        let cookie_secure = settings.sessions.cookie_secure;
        let feed = Feed::new(&settings.feed, redis.clone());
        let hub = Hub::new(&feed, &live::TOPICS, registry);
        let drain = Drain::default();
        let admission = Admission::new(&settings.admission, settings.requests_served_at_once());
        Ok(Self {
            http: Arc::new(settings.http.clone()),
            grpc: Arc::new(settings.grpc.clone()),
            health: Arc::new(Health::new(settings.admin.clone())),
            degradations: Degradations::register(registry),
            admission,
            flags: flags.clone(),
            tokenizer: Tokenizer::new(
                Tokens::new(&settings.postgres),
                sessions.clone(),
                cookie_secure,
            ),
            idempotency: Arc::new(settings.idempotency.clone()),
            limits: Limits::new(&settings.limits, redis.clone(), registry),
            session_cookie: SessionCookie::new(cookie_secure),
            passwords: Passwords::new(&settings.sessions.passwords),
            throttle: Throttle::new(&settings.sessions.throttle, redis.clone(), registry),
            products: ProductCache::new(&cache, clusters.clone()),
            recommender: Recommender::new(
                &settings.recommendations,
                &outbound,
                &cache,
                clusters.clone(),
                flags,
            )?,
            payments: Payments::new(&settings.orders.payments, &outbound)?,
            events: Events::new(&settings.events, clusters.clone(), registry),
            live: Live::new(
                &settings.live,
                hub,
                sessions.clone(),
                drain.clone(),
                registry,
            ),
            feed,
            drain,
            sessions,
            clusters,
            cache,
            redis,
        })
    }

    /// Every dependency as the background checks last saw it.
    pub fn checks(&self) -> Vec<Check> {
        let redis = self.redis.status();
        let nodes = self.clusters.status().into_iter().map(|node| Check {
            name: node.name,
            kind: "datastore",
            healthy: node.healthy,
            age: node.checked_ago,
            error: node.error,
        });
        let redis = Check {
            name: data::redis::NAME.to_owned(),
            kind: "datastore",
            healthy: redis.healthy,
            age: redis.age,
            error: redis.error,
        };
        let map = self.clusters.map_status().map(|map| Check {
            name: "shard-map".to_owned(),
            kind: "datastore",
            healthy: map.healthy,
            age: map.confirmed_ago_ms.map(Duration::from_millis),
            error: (!map.healthy).then(|| "was not confirmed lately".to_owned()),
        });
        // Nobody asks it in the background: it is as the last payments found it.
        let payments = self.payments.as_ref().map(|payments| Check {
            name: PAYMENTS.to_owned(),
            kind: "component",
            healthy: !payments.is_away(),
            age: None,
            error: payments
                .is_away()
                .then(|| "has failed too often".to_owned()),
        });
        nodes.chain(map).chain([redis]).chain(payments).collect()
    }

    /// Keeps what every answer says of the dependencies, and what watches readiness, up with the background checks, for ever.
    pub async fn note_checks(&self) {
        loop {
            let checks = self.checks();
            self.degradations.note_checks(&checks);
            self.health.note_ready(&checks, self.schema_is_current());
            sleep(NOTED_EVERY).await;
        }
    }

    /// Whether requests may come, as `/ready` says it.
    pub fn is_ready(&self) -> bool {
        let not_ready = self
            .health
            .not_ready(&self.checks(), self.schema_is_current());
        not_ready.is_none()
    }

    /// Whether the database has every migration this build was made with.
    pub fn schema_is_current(&self) -> bool {
        self.clusters
            .schema_version()
            .is_some_and(|version| version >= data::migrate::expected())
    }
}
