//! Finds recommendations: the recommender's, else its last ones for the product, else what sells best.

use std::sync::Arc;

use data::{
    cache::{Cache, Cached, Namespace},
    postgres::Clusters,
};
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    model::{Config, Source},
    store,
};
use crate::{
    flags::{Flag, Flags},
    http::{
        Caller,
        outbound::{Metrics, Service},
    },
};

/// Recommendations for one product.
const ITEMS_MAX: usize = 20;

/// Raise it when the list changes its shape.
const VERSION: u32 = 1;

/// The one list there is of what sells best.
const EVERYTHING: &str = "everything";

/// See the module. A clone is the same one.
#[derive(Clone)]
pub struct Recommender {
    flags: Flags,
    service: Option<Service>,
    last_good: moka::future::Cache<Uuid, Arc<Vec<Uuid>>>,
    best_sellers: Namespace<BestSellers>,
}

/// Products to recommend, best first.
pub struct Found {
    pub ids: Vec<Uuid>,
    pub source: Source,
    /// Whether there should be better ones.
    pub is_fallback: bool,
}

/// The recommender's answer.
#[derive(Deserialize)]
struct Given {
    product_ids: Vec<Uuid>,
}

impl Recommender {
    /// # Errors
    /// When TLS to the recommender cannot be set up.
    pub fn new(
        config: &Config,
        metrics: &Metrics,
        cache: &Cache,
        clusters: Clusters,
        flags: Flags,
    ) -> anyhow::Result<Self> {
        let best_sellers = BestSellers(clusters);
        Ok(Self {
            flags,
            service: Service::new("recommender", &config.upstream, metrics)?,
            last_good: moka::future::Cache::builder()
                .max_capacity(config.kept_max)
                .time_to_live(config.kept_for)
                .build(),
            best_sellers: cache.namespace(
                "best_sellers",
                VERSION,
                config.best_sellers,
                best_sellers,
            ),
        })
    }

    /// Whether there are to be any recommendations.
    pub fn is_on(&self) -> bool {
        self.flags.is_on(Flag::Recommendations)
    }

    /// What goes well with the product.
    ///
    /// # Errors
    /// Only when not even what sells best can be found out.
    pub async fn for_product(&self, id: Uuid, caller: &Caller) -> Result<Found, data::Error> {
        let Some(service) = &self.service else {
            return self.best_sellers(id, false, caller).await;
        };
        let target = format!("/recommendations?product_id={id}");
        match service.get::<Given>(&target, caller).await {
            Ok(Given { mut product_ids }) => {
                product_ids.truncate(ITEMS_MAX);
                let kept = Arc::new(product_ids.clone());
                self.last_good.insert(id, kept).await;
                Ok(Found {
                    ids: product_ids,
                    source: Source::Recommender,
                    is_fallback: false,
                })
            }
            Err(error) => {
                tracing::debug!(product.id = %id, %error, "the recommender did not answer");
                self.fall_back(id, caller).await
            }
        }
    }

    async fn fall_back(&self, id: Uuid, caller: &Caller) -> Result<Found, data::Error> {
        match self.last_good.get(&id).await {
            Some(kept) => Ok(Found {
                ids: kept.to_vec(),
                source: Source::LastGood,
                is_fallback: true,
            }),
            None => self.best_sellers(id, true, caller).await,
        }
    }

    async fn best_sellers(
        &self,
        id: Uuid,
        is_fallback: bool,
        caller: &Caller,
    ) -> Result<Found, data::Error> {
        let everything = EVERYTHING.to_owned();
        let found = self.best_sellers.get(&everything, caller.deadline).await?;
        let listed = found.as_ref().map_or(&[][..], |list| list.as_slice());
        Ok(Found {
            ids: listed
                .iter()
                .copied()
                .filter(|other| *other != id)
                .collect(),
            source: Source::BestSellers,
            is_fallback: is_fallback || found.as_ref().is_some_and(Cached::is_degraded),
        })
    }
}

/// What sells best, out of the lines of orders.
struct BestSellers(Clusters);

impl data::cache::Source for BestSellers {
    type Key = String;
    type Value = Vec<Uuid>;

    async fn load(&self, _: &String, deadline: Instant) -> Result<Option<Vec<Uuid>>, data::Error> {
        let reader = self.0.db(deadline).read();
        store::best_sellers(&reader).await.map(Some)
    }
}
