//! Products by id, as every process keeps them close.

use std::{sync::Arc, time::Duration};

use data::cache::{Cache, Namespace};
use futures::future::join_all;
use uuid::Uuid;

use super::{model::Product, store};
use crate::http::Db;

/// The products that were read last.
#[derive(Clone)]
pub struct ProductCache(Namespace<Product>);

/// Raise it when [`Product`] changes its shape.
const VERSION: u32 = 1;

/// How long Redis keeps a product that nobody changes.
const TTL: Duration = Duration::from_secs(60);

impl ProductCache {
    pub fn new(cache: &Cache) -> Self {
        Self(cache.namespace("products", VERSION, TTL))
    }

    /// The product from the nearest place that has it.
    pub async fn find(&self, db: &Db, id: Uuid) -> Result<Option<Arc<Product>>, data::Error> {
        let reader = db.read();
        self.0
            .get_or_load(&id.to_string(), db.deadline(), || store::find(&reader, id))
            .await
    }

    /// Keeps what was just written.
    pub async fn put(&self, db: &Db, product: &Product) {
        self.0
            .put(&product.id.to_string(), product.clone(), db.deadline())
            .await;
    }

    /// Forgets products that many write at once, as orders do: the last value put would be anyone's.
    pub async fn forget(&self, db: &Db, ids: impl IntoIterator<Item = Uuid>) {
        let forget = async |id: Uuid| self.0.remove(&id.to_string(), db.deadline()).await;
        join_all(ids.into_iter().map(forget)).await;
    }
}
