//! Clients that read products and place orders without a pause, and who answered how many of their calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use api::proto::{
    catalog::v1::{GetProductRequest, catalog_client::CatalogClient},
    orders::v1::orders_client::OrdersClient,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
};

use super::{client::Client, key, one_of};
use crate::{
    service::{PATIENCE, Service},
    wire::get,
};

/// How often it is looked whether calls are spread evenly.
const LOOKS_MAX: usize = 5;
const CLIENTS: usize = 12;
/// Of how many calls one is an order.
const ORDERS: usize = 8;
/// Calls of a phase in which nothing changes.
pub const PHASE: usize = 1500;

/// Clients at work, and what they came to.
pub struct Load {
    pub client: Arc<Client>,
    counts: Arc<Counts>,
    clients: JoinSet<Vec<Status>>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicUsize,
    ordered: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    /// Of clients that order now and then, as the customer of `bearer`.
    pub fn start(client: Client, products: &[String], bearer: &MetadataValue<Ascii>) -> Self {
        Self::of(client, products, Some(bearer))
    }

    /// Of clients that only read.
    pub fn reading(client: Client, products: &[String]) -> Self {
        Self::of(client, products, None)
    }

    fn of(client: Client, products: &[String], bearer: Option<&MetadataValue<Ascii>>) -> Self {
        let client = Arc::new(client);
        let counts = Arc::<Counts>::default();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (client, counts) = (Arc::clone(&client), Arc::clone(&counts));
            let (products, bearer) = (products.to_vec(), bearer.cloned());
            clients.spawn(async move {
                let mut failed = Vec::new();
                while !counts.stop.load(Ordering::Relaxed) {
                    let product = &products[fastrand::usize(..products.len())];
                    let bearer = bearer.as_ref().filter(|_| fastrand::usize(..ORDERS) == 0);
                    let answer = match bearer {
                        Some(bearer) => order(&client, product, bearer).await,
                        None => read(&client, product).await,
                    };
                    let is_order = bearer.is_some();
                    match answer {
                        Ok(()) => {
                            counts.answered.fetch_add(1, Ordering::Relaxed);
                            counts
                                .ordered
                                .fetch_add(usize::from(is_order), Ordering::Relaxed);
                        }
                        Err(status) => failed.push(status),
                    }
                }
                failed
            });
        }
        Self {
            client,
            counts,
            clients,
        }
    }

    /// Waits until so many more calls were answered, however long they take as long as any is.
    pub async fn more(&self, calls: usize) {
        let answered = || self.counts.answered.load(Ordering::Relaxed);
        let target = answered() + calls;
        let (mut last, mut since) = (answered(), Instant::now());
        while last < target {
            sleep(Duration::from_millis(5)).await;
            if answered() > last {
                (last, since) = (answered(), Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "the load has stopped");
        }
    }

    /// How evenly `processes` share the calls. Looked at again where they do not, for on a busy machine one of them may get nothing done
    /// for a while.
    pub async fn spread(&self, phase: &str, processes: &[&Service]) -> f64 {
        let mut spread = f64::INFINITY;
        for _ in 0..LOOKS_MAX {
            spread = self.spread_once(phase, processes).await;
            if spread < 0.1 {
                break;
            }
        }
        spread
    }

    /// How many calls each of `processes` has answered while all together answered a phase's.
    async fn spread_once(&self, phase: &str, processes: &[&Service]) -> f64 {
        let mut before = Vec::new();
        for process in processes {
            before.push(calls(process).await);
        }
        self.more(PHASE).await;
        let mut answered = Vec::new();
        for (process, before) in processes.iter().zip(before) {
            answered.push(calls(process).await - before);
        }
        let spread = spread(&answered);
        println!("{phase}: {answered:?} calls, {:.1} % apart", spread * 100.0);
        spread
    }

    /// Every call that failed, and how many orders went well. Prints the figures.
    pub async fn stop(self) -> (Vec<Status>, usize) {
        self.counts.stop.store(true, Ordering::Relaxed);
        let failed = self.clients.join_all().await.concat();
        let [answered, ordered, retries] = [
            &self.counts.answered,
            &self.counts.ordered,
            &self.client.retries,
        ]
        .map(|count| count.load(Ordering::Relaxed));
        println!(
            "{answered} calls answered, {ordered} of them orders, {retries} tried again, {} failed",
            failed.len()
        );
        (failed, ordered)
    }
}

async fn read(client: &Client, product: &str) -> Result<(), Status> {
    let attempt = |channel, left| {
        let id = product.to_owned();
        let mut request = Request::new(GetProductRequest { id });
        request.set_timeout(left);
        async move { CatalogClient::new(channel).get_product(request).await }
    };
    let answer = client.call("/catalog.v1.Catalog/GetProduct", attempt);
    answer.await.map(drop)
}

/// The same key for every attempt.
async fn order(
    client: &Client,
    product: &str,
    bearer: &MetadataValue<Ascii>,
) -> Result<(), Status> {
    let key = key();
    let attempt = |channel, left| {
        let mut request = Request::new(one_of(product));
        request.set_timeout(left);
        request
            .metadata_mut()
            .insert("authorization", bearer.clone());
        request
            .metadata_mut()
            .insert("idempotency-key", key.clone());
        async move { OrdersClient::new(channel).create_order(request).await }
    };
    let answer = client.call("/orders.v1.Orders/CreateOrder", attempt);
    answer.await.map(drop)
}

/// The difference between the most and the fewest, in parts of what each would have had.
fn spread(answered: &[u64]) -> f64 {
    let (most, fewest) = (
        answered.iter().max().unwrap(),
        answered.iter().min().unwrap(),
    );
    let mean = answered.iter().sum::<u64>() / answered.len() as u64;
    (most - fewest) as f64 / mean as f64
}

/// RPCs that a process has answered.
pub async fn calls(service: &Service) -> u64 {
    let metrics = get(service.admin, "/metrics").await.body;
    let counts = metrics
        .lines()
        .filter(|line| line.starts_with("rpc_server_call_duration_seconds_count{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    counts.sum()
}
