//! Clients of a balancer that keep their connections, read products, and order one now and then.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::haproxy::SERVED_BY;
use crate::{
    service::PATIENCE,
    wire::{IDEMPOTENCY_KEY, Reply, Wire, borrowed},
};

const CLIENTS: usize = 6;
/// Of how many requests one is an order.
const ORDERS: usize = 8;

/// What makes a request a customer's.
pub type Headers = Vec<(&'static str, String)>;

/// Clients at work, and what they came to.
pub struct Load {
    counts: Arc<Counts>,
    clients: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicUsize,
    ordered: AtomicUsize,
    held: AtomicUsize,
    by: Mutex<BTreeMap<String, usize>>,
    lost: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// What became of a load.
pub struct Outcome {
    pub answered: usize,
    pub ordered: usize,
    /// Answers that an order is being worked on.
    pub held: usize,
    pub lost: Vec<String>,
}

impl Load {
    /// Of clients that read these products, and with the headers of a customer order them.
    pub fn start(address: SocketAddr, products: &[String], customer: Option<&Headers>) -> Self {
        let counts = Arc::<Counts>::default();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let client = Client {
                address,
                products: products.to_vec(),
                customer: customer.cloned(),
                counts: Arc::clone(&counts),
            };
            clients.spawn(client.run());
        }
        Self { counts, clients }
    }

    /// Waits until so many more requests were answered, however long they take as long as any is.
    pub async fn more(&self, requests: usize) {
        let answered = || self.counts.answered.load(Ordering::Relaxed);
        let target = answered() + requests;
        let (mut last, mut since) = (answered(), Instant::now());
        while last < target {
            sleep(Duration::from_millis(5)).await;
            if answered() > last {
                (last, since) = (answered(), Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "the load has stopped");
        }
    }

    /// The part of each process in the next `requests`, in percent.
    pub async fn shares(&self, requests: usize) -> BTreeMap<String, f64> {
        let before = self.counts.by.lock().unwrap().clone();
        self.more(requests).await;
        let mut by = self.counts.by.lock().unwrap().clone();
        by.iter_mut()
            .for_each(|(name, count)| *count -= before.get(name).unwrap_or(&0));
        let all: usize = by.values().sum();
        by.into_iter()
            .map(|(name, count)| (name, 100.0 * count as f64 / all as f64))
            .collect()
    }

    pub async fn stop(self) -> Outcome {
        self.counts.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
        Outcome {
            answered: self.counts.answered.load(Ordering::Relaxed),
            ordered: self.counts.ordered.load(Ordering::Relaxed),
            held: self.counts.held.load(Ordering::Relaxed),
            lost: self.counts.lost.lock().unwrap().clone(),
        }
    }
}

struct Client {
    address: SocketAddr,
    products: Vec<String>,
    customer: Option<Headers>,
    counts: Arc<Counts>,
}

impl Client {
    async fn run(self) {
        let mut kept = None;
        while !self.counts.stop.load(Ordering::Relaxed) {
            kept = match self.request(kept.take()).await {
                Ok(kept) => kept,
                Err(lost) => {
                    self.counts.lost.lock().unwrap().push(lost);
                    None
                }
            };
        }
    }

    /// One request on the connection that was kept, or on a new one; the connection, if it may be kept again.
    async fn request(&self, kept: Option<Wire>) -> Result<Option<Wire>, String> {
        let mut wire = match kept {
            Some(wire) => wire,
            None => Wire::connect(self.address)
                .await
                .map_err(|error| format!("to connect: {error}"))?,
        };
        let product = &self.products[fastrand::usize(..self.products.len())];
        let customer = self.customer.as_ref();
        let reply = match customer.filter(|_| fastrand::usize(..ORDERS) == 0) {
            Some(customer) => self.order(&mut wire, product, customer).await?,
            None => {
                let line = format!("GET /v1/products/{product}");
                answered(wire.call(&line, &[], None).await, 200, &line)?
            }
        };
        let by = reply.header(SERVED_BY).unwrap_or_default().to_owned();
        *self.counts.by.lock().unwrap().entry(by).or_default() += 1;
        self.counts.answered.fetch_add(1, Ordering::Relaxed);
        Ok((!reply.closes()).then_some(wire))
    }

    /// Sent again under its key for as long as the answer is to do so: one that was killed at it has it until its lease is over.
    async fn order(
        &self,
        wire: &mut Wire,
        product: &str,
        customer: &Headers,
    ) -> Result<Reply, String> {
        let line = "POST /v1/orders";
        let body = json!({ "lines": [{ "product_id": product, "quantity": 1 }] });
        let key = format!("{:032x}", fastrand::u128(..));
        let mut headers = borrowed(customer);
        headers.push((IDEMPOTENCY_KEY, &key));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = wire.call(line, &headers, Some(&body)).await;
            let is_held = |reply: &Reply| reply.body.contains("idempotency_key_in_use");
            if reply.as_ref().is_ok_and(is_held) && Instant::now() < deadline {
                self.counts.held.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            let reply = answered(reply, 201, line)?;
            self.counts.ordered.fetch_add(1, Ordering::Relaxed);
            return Ok(reply);
        }
    }
}

fn answered(reply: io::Result<Reply>, status: u16, line: &str) -> Result<Reply, String> {
    let reply = reply.map_err(|error| format!("{line}: {error}"))?;
    match reply.status == status {
        true => Ok(reply),
        false => Err(format!("{line}: {} {}", reply.status, reply.body)),
    }
}
