//! Products by id, as every process keeps them close: with the bytes and the tag they are served with.

use data::{
    cache::{Cache, Cached, Namespace, Source},
    postgres::Clusters,
};
use serde::{Deserialize, Serialize, Serializer};
use tokio::time::Instant;
use uuid::Uuid;

use super::{model::Product, store};
use crate::http::{Db, conditional::ETag};

/// The products that were read last.
#[derive(Clone)]
pub struct ProductCache(Namespace<Catalogue>);

/// Raise it when [`Product`] changes its shape.
const VERSION: u32 = 1;

impl ProductCache {
    pub fn new(cache: &Cache, clusters: Clusters) -> Self {
        Self(cache.namespace("products", VERSION, cache.lifetime(), Catalogue(clusters)))
    }

    /// The product from the nearest place that has it. For a client that has just written, that is the database: what others
    /// have loaded meanwhile may be from before.
    pub async fn find(&self, db: &Db, id: Uuid) -> Result<Option<Cached<Prepared>>, data::Error> {
        if !db.is_bound() {
            return self.0.get(&id, db.deadline()).await;
        }
        let product = store::find(&db.read(), id).await?;
        let around = |product| self.0.around(&id, Prepared::from(product));
        product.map(around).transpose()
    }

    /// Loads the product, if it is not in the cache.
    pub async fn warm(&self, id: Uuid, deadline: Instant) -> Result<(), data::Error> {
        self.0.get(&id, deadline).await.map(drop)
    }

    /// Keeps what was just written.
    pub async fn put(&self, db: &Db, product: &Product) {
        let prepared = Prepared::from(product.clone());
        self.0.put(&product.id, prepared, db.deadline()).await;
    }

    /// Forgets products that many write at once, as orders do: the last value put would be anyone's.
    pub async fn forget(&self, db: &data::postgres::Db, ids: impl IntoIterator<Item = Uuid>) {
        self.0.remove_all(ids, db.deadline()).await;
    }
}

/// A product and its tag, made once for all who are served it. In JSON it is the product.
#[derive(Deserialize)]
#[serde(from = "Product")]
pub struct Prepared {
    pub product: Product,
    pub etag: ETag,
}

impl From<Product> for Prepared {
    fn from(product: Product) -> Self {
        let etag = product.etag();
        Self { product, etag }
    }
}

impl Serialize for Prepared {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.product.serialize(serializer)
    }
}

/// The table of products.
struct Catalogue(Clusters);

impl Source for Catalogue {
    type Key = Uuid;
    type Value = Prepared;

    async fn load(&self, id: &Uuid, deadline: Instant) -> Result<Option<Prepared>, data::Error> {
        let product = store::find(&self.0.db(deadline).read(), *id).await?;
        Ok(product.map(Prepared::from))
    }
}
