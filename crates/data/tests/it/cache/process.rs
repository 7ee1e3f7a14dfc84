//! A process with a cache, and a source that does as a test tells it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data::Error;
use data::cache::{Cache, Cached, Config, Lifetime, Namespace, Source};
use futures::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::redis_server::{Server, Watched, soon, until};

pub const TTL: Duration = Duration::from_secs(60);
pub const KEY: &str = "holdfast:cache:things:v1:a";

/// One process with its cache; several of them share a server.
pub struct Process {
    pub client: Watched,
    pub cache: Cache,
    registry: Registry,
    pub loads: Loads,
    pub things: Namespace<Loads>,
}

impl Process {
    pub async fn new(server: &Server) -> Self {
        Self::with(server.connected().await, &Config::default())
            .listening()
            .await
    }

    pub fn with(client: Watched, config: &Config) -> Self {
        Self::living(client, config, Lifetime::fresh(TTL))
    }

    pub fn living(client: Watched, config: &Config, lifetime: Lifetime) -> Self {
        let mut registry = Registry::default();
        let cache = Cache::new(config, client.redis.clone(), &mut registry);
        let loads = Loads::default();
        let things = cache.namespace("things", 1, lifetime, loads.clone());
        Self {
            client,
            cache,
            registry,
            loads,
            things,
        }
    }

    /// Waits until it hears of the writes of others.
    pub async fn listening(self) -> Self {
        until("the cache is subscribed", async || {
            self.metric("cache_subscribed") == 1.0
        })
        .await;
        self
    }

    /// What the cache gives for `a` when a load would find `value`.
    pub async fn get(&self, value: Option<&str>) -> Option<String> {
        self.loads.find(value);
        self.ask().await
    }

    /// What the cache gives for `a` without any load.
    pub async fn cached(&self) -> Option<String> {
        let before = self.loads.count();
        let found = self.ask().await;
        assert_eq!(self.loads.count(), before, "nothing was cached");
        found
    }

    pub async fn ask(&self) -> Option<String> {
        let found = self.find("a").await.unwrap();
        found.map(|value| String::clone(&value))
    }

    pub async fn find(&self, key: &str) -> Result<Option<Cached<String>>, Error> {
        self.things.get(&key.to_owned(), soon()).await
    }

    pub async fn put(&self, value: &str) {
        self.things
            .put(&"a".to_owned(), value.to_owned(), soon())
            .await;
    }

    pub async fn remove(&self) {
        self.things.remove(&"a".to_owned(), soon()).await;
    }

    pub fn metric(&self, line: &str) -> f64 {
        crate::redis_server::metric(&self.registry, line)
    }

    /// One of the outcomes of `cache_<family>`.
    pub fn outcome(&self, family: &str, outcome: &str) -> u64 {
        let labels = format!(r#"{{cache="things",outcome="{outcome}"}}"#);
        self.metric(&format!("cache_{family}_total{labels}")) as u64
    }

    pub fn counted(&self, level: &str, outcome: &str) -> u64 {
        let line = format!(
            r#"cache_requests_total{{cache="things",level="{level}",outcome="{outcome}"}}"#
        );
        self.metric(&line) as u64
    }
}

type Load = BoxFuture<'static, Result<Option<String>, Error>>;

/// A source that does as it is told.
#[derive(Clone, Default)]
pub struct Loads(Arc<Mutex<Orders>>);

#[derive(Default)]
struct Orders {
    count: u32,
    /// For one load each.
    once: VecDeque<Load>,
    /// For all others.
    always: Option<Box<dyn Fn(String) -> Load + Send>>,
}

impl Loads {
    pub fn count(&self) -> u32 {
        self.0.lock().unwrap().count
    }

    pub fn once(&self, load: impl Future<Output = Result<Option<String>, Error>> + Send + 'static) {
        self.0.lock().unwrap().once.push_back(Box::pin(load));
    }

    pub fn always<F>(&self, load: impl Fn(String) -> F + Send + 'static)
    where
        F: Future<Output = Result<Option<String>, Error>> + Send + 'static,
    {
        self.0.lock().unwrap().always = Some(Box::new(move |key| Box::pin(load(key))));
    }

    pub fn find(&self, value: Option<&str>) {
        let value = value.map(str::to_owned);
        self.always(move |_| std::future::ready(Ok(value.clone())));
    }

    pub fn fail(&self) {
        self.always(|_| std::future::ready(Err(away())));
    }
}

impl Source for Loads {
    type Key = String;
    type Value = String;

    async fn load(&self, key: &String, _: Instant) -> Result<Option<String>, Error> {
        let load = {
            let mut orders = self.0.lock().unwrap();
            orders.count += 1;
            let once = orders.once.pop_front();
            let always = || orders.always.as_ref().map(|load| load(key.clone()));
            once.or_else(always).expect("no load was foreseen")
        };
        load.await
    }
}

pub fn away() -> Error {
    Error::Unavailable {
        dependency: "postgres-primary",
        source: None,
    }
}
