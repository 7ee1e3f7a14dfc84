//! Clients that ask, as behind a balancer: who is sent away, or finds nobody, goes to the other process. What was sent has to be
//! answered.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Place;
use crate::{
    service::PATIENCE,
    wire::{Reply, Wire, borrowed},
};

/// Of a slow upload.
const PIECES: usize = 10;
const BETWEEN_PIECES: Duration = Duration::from_millis(150);
/// Before somebody who found nobody looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Failures that are shown.
const SHOWN: usize = 20;

/// What came of everything.
#[derive(Default)]
pub struct Tally {
    pub reads: Count,
    pub uploads: Count,
    /// Those that were accepted with an upload.
    pub events: Count,
    pub orders: Count,
    /// Clients that hear what happens at the moment.
    hearing: AtomicUsize,
    /// How often one of them was sent away.
    pub sent_away: Count,
    failures: Mutex<Vec<String>>,
    stop: AtomicBool,
    /// What is left when all is sold; nobody knows before.
    last: AtomicI64,
}

#[derive(Default)]
pub struct Count(AtomicI64);

impl Count {
    pub fn add(&self, more: i64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub fn count(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [reads, uploads, orders, sent_away] =
            [&self.reads, &self.uploads, &self.orders, &self.sent_away].map(Count::count);
        let failures = self.failures.lock().unwrap().len();
        write!(
            f,
            "{reads} reads, {uploads} slow uploads, {orders} orders; {sent_away} times somebody who listened was sent away; {failures} failures"
        )
    }
}

impl Tally {
    pub fn fail(&self, what: impl Into<String>) {
        self.failures.lock().unwrap().push(what.into());
    }

    /// The first ones.
    pub fn failures(&self) -> Vec<String> {
        let failures = self.failures.lock().unwrap();
        failures.iter().take(SHOWN).cloned().collect()
    }

    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    fn stops(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Says what is left in the last change.
    pub fn sell_out(&self, left: i64) {
        self.last.store(left, Relaxed);
    }

    pub fn is_last(&self, left: i64) -> bool {
        self.last.load(Relaxed) == left
    }

    pub fn hears(&self) {
        self.hearing.fetch_add(1, Relaxed);
    }

    pub fn hears_no_more(&self) {
        self.hearing.fetch_sub(1, Relaxed);
        self.sent_away.add(1);
    }

    pub async fn all_hear(&self, clients: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.hearing.load(Relaxed) < clients {
            assert!(Instant::now() < deadline, "somebody does not come back");
            sleep(LOOK_AGAIN).await;
        }
    }

    pub async fn answered_more(&self, requests: usize) {
        let target = self.reads.count() + i64::try_from(requests).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while self.reads.count() < target {
            assert!(Instant::now() < deadline, "nobody answers: {self}");
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// A connection to one of two processes, kept while it may be.
struct Kept {
    addresses: [SocketAddr; 2],
    at: usize,
    wire: Option<Wire>,
}

impl Kept {
    fn new(places: [Place; 2], at: usize) -> Self {
        Self {
            addresses: places.map(|place| place.public),
            at,
            wire: None,
        }
    }

    async fn wire(&mut self) -> Wire {
        loop {
            if let Some(wire) = self.wire.take() {
                return wire;
            }
            match Wire::connect(self.addresses[self.at]).await {
                Ok(wire) => return wire,
                // Nothing was sent.
                Err(_) => self.at = 1 - self.at,
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn keep(&mut self, wire: Wire, reply: &Reply) {
        match reply.closes() {
            true => self.at = 1 - self.at,
            false => self.wire = Some(wire),
        }
    }

    /// The answer, if it is the one that is due.
    async fn judge(
        &mut self,
        what: &str,
        wire: Wire,
        reply: io::Result<Reply>,
        due: u16,
        tally: &Tally,
    ) -> Option<Reply> {
        match reply {
            Ok(reply) if reply.status == due => {
                self.keep(wire, &reply);
                return Some(reply);
            }
            Ok(reply) => tally.fail(format!("{what}: {reply:?}")),
            Err(error) => tally.fail(format!("{what}: {error}")),
        }
        None
    }
}

/// Reads without a pause.
pub async fn read(places: [Place; 2], at: usize, tally: Arc<Tally>) {
    let mut kept = Kept::new(places, at);
    while !tally.stops() {
        let mut wire = kept.wire().await;
        let reply = wire.get("/v1/products?limit=5").await;
        let answered = kept.judge("a read", wire, reply, 200, &tally).await;
        tally.reads.add(answered.is_some().into());
    }
}

/// Buys one piece after the other, and once it is to stop the last.
pub async fn buy(
    places: [Place; 2],
    at: usize,
    product: String,
    session: [(&'static str, String); 2],
    tally: Arc<Tally>,
) {
    let mut kept = Kept::new(places, at);
    let order = json!({ "lines": [{ "product_id": product, "quantity": 1 }] });
    loop {
        let is_last = tally.stops();
        let mut wire = kept.wire().await;
        let reply = wire
            .call("POST /v1/orders", &borrowed(&session), Some(&order))
            .await;
        let answered = kept.judge("an order", wire, reply, 201, &tally).await;
        tally.orders.add(answered.is_some().into());
        if is_last {
            return;
        }
    }
}

/// Sends events, a piece of them at a time.
pub async fn upload(places: [Place; 2], at: usize, tally: Arc<Tally>) {
    let mut kept = Kept::new(places, at);
    let properties = json!({ "padding": "x".repeat(900) });
    let event = json!({ "name": "looked_on", "properties": properties });
    let body = json!({ "events": vec![event; PIECES] }).to_string();
    let piece = body.len().div_ceil(PIECES);
    while !tally.stops() {
        let mut wire = kept.wire().await;
        let reply = send_slowly(&mut wire, &body, piece).await;
        let Some(reply) = kept.judge("an upload", wire, reply, 202, &tally).await else {
            continue;
        };
        tally.uploads.add(1);
        let received: Value = reply.json();
        tally.events.add(received["accepted"].as_i64().unwrap());
        if received["dropped"] != 0 {
            tally.fail(format!("an upload: {received}"));
        }
    }
}

async fn send_slowly(wire: &mut Wire, body: &str, piece: usize) -> io::Result<Reply> {
    let length = body.len();
    wire.try_send(&format!(
        "POST /v1/events HTTP/1.1\r\nHost: shop\r\nSec-Fetch-Site: same-origin\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ))
    .await?;
    for piece in body.as_bytes().chunks(piece) {
        sleep(BETWEEN_PIECES).await;
        wire.try_send(str::from_utf8(piece).expect("it is ASCII"))
            .await?;
    }
    wire.reply().await
}
