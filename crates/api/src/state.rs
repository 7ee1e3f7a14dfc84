//! What every request can reach, and the one place where it is built.

use std::sync::Arc;

use axum::extract::FromRef;
use data::{
    cache::Cache,
    postgres::{Cluster, Tokens},
    redis::Redis,
    sessions::Sessions,
};
use prometheus_client::registry::Registry;
use resilience::admission::Admission;

use crate::{
    features::{products::ProductCache, sessions::Passwords},
    http::{
        self,
        admission::metrics::Collected,
        consistency::Tokenizer,
        health::{Check, Health},
        session::SessionCookie,
    },
    settings::Settings,
};

/// Shared by all requests of the process. A clone is a handful of reference counts.
#[derive(Clone, FromRef)]
pub struct AppState {
    /// The public listener's limits.
    pub http: Arc<http::Config>,
    /// The stage of the process and what its probes answer from.
    pub health: Arc<Health>,
    /// Who is worked for, and who is refused.
    pub admission: Admission,
    /// Postgres; handlers take the extractor `Db`, which knows the request's deadline.
    pub cluster: Cluster,
    /// The shared connection to Redis.
    pub redis: Redis,
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
    /// Products by id.
    pub products: ProductCache,
}

impl AppState {
    /// Opens no connection and waits for nothing, so a service starts whatever its dependencies do.
    ///
    /// # Errors
    /// For URLs that settings from [`settings::load`] never hold.
    pub fn new(settings: &Settings, registry: &mut Registry) -> anyhow::Result<Self> {
        let redis = Redis::new(&settings.redis, registry)?;
        let cache = Cache::new(&settings.cache, redis.clone(), registry);
        let cluster = Cluster::new(&settings.postgres, registry)?;
        let sessions = Sessions::new(&settings.sessions.store, redis.clone());
        let cookie_secure = settings.sessions.cookie_secure;
        let admission = Admission::new(&settings.admission, settings.requests_served_at_once());
        registry.register_collector(Box::new(Collected(admission.clone())));
        Ok(Self {
            http: Arc::new(settings.http.clone()),
            health: Arc::new(Health::new(settings.admin.clone())),
            admission,
            tokenizer: Tokenizer::new(
                Tokens::new(&settings.postgres),
                sessions.clone(),
                cookie_secure,
            ),
            sessions,
            session_cookie: SessionCookie::new(cookie_secure),
            passwords: Passwords::new(&settings.sessions.passwords),
            products: ProductCache::new(&cache, cluster.clone()),
            cluster,
            cache,
            redis,
        })
    }

    /// Every dependency as the background checks last saw it.
    pub fn checks(&self) -> Vec<Check> {
        let redis = self.redis.status();
        let nodes = self.cluster.status().into_iter().map(|node| Check {
            name: node.name,
            healthy: node.healthy,
            age: node.checked_ago,
            error: node.error,
        });
        let redis = Check {
            name: data::redis::NAME.to_owned(),
            healthy: redis.healthy,
            age: redis.age,
            error: redis.error,
        };
        nodes.chain([redis]).collect()
    }

    /// Whether the database has every migration this build was made with.
    pub fn schema_is_current(&self) -> bool {
        self.cluster
            .schema_version()
            .is_some_and(|version| version >= data::migrate::expected())
    }
}
