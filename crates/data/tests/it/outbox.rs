//! Events that are delivered whatever happens to whoever delivers them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use data::Error;
use data::outbox::{self, Event, NewEvent, Relay, Sink, Undelivered, emit};
use data::postgres::{Clusters, Config, shards};
use devstack::{Meter, Moment};
use prometheus_client::registry::Registry;
use secrecy::SecretString;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::postgres::rig::{Rig, until};

const TOPIC: &str = "things";
/// More round trips than a batch makes.
const ROUND_TRIPS_MAX: usize = 40;

/// Remembers what it was given, and fails while it is told to.
#[derive(Clone, Default)]
struct Recorder {
    delivered: Arc<Mutex<Vec<Event>>>,
    refusals: Arc<Mutex<u32>>,
}

impl Recorder {
    fn delivered(&self) -> Vec<Event> {
        self.delivered.lock().unwrap().clone()
    }

    /// The numbers in the order of delivery, of one key.
    fn numbers(&self, key: Uuid) -> Vec<i64> {
        let of_key = |event: &Event| (event.key == key).then(|| event.body["number"].as_i64());
        self.delivered()
            .iter()
            .filter_map(of_key)
            .flatten()
            .collect()
    }
}

impl Sink for Recorder {
    async fn deliver(&self, events: &[Event]) -> Result<(), Undelivered> {
        let mut refusals = self.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return Err("not now".into());
        }
        self.delivered.lock().unwrap().extend_from_slice(events);
        Ok(())
    }
}

fn event(key: Uuid, number: i64) -> NewEvent {
    NewEvent {
        topic: TOPIC,
        key,
        body: json!({ "number": number }),
    }
}

/// Emits an event for each number, each in a transaction of its own.
async fn emit_each(rig: &Rig, key: Uuid, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let emitted: Result<(), Error> = rig
            .writer()
            .transaction(|mut tx| async move {
                emit(&mut tx, [event(key, number)]).await?;
                tx.commit(()).await
            })
            .await;
        emitted.unwrap();
    }
}

/// Starts a relay over `clusters`.
fn relay(clusters: &Clusters, sink: &Recorder, stop: &CancellationToken) -> JoinHandle<()> {
    let config = outbox::Config {
        poll_interval: Duration::from_millis(10),
        standby_interval: Duration::from_millis(20),
        batch: 7,
        ..outbox::Config::default()
    };
    let relay = Relay::new(
        clusters.clone(),
        sink.clone(),
        &config,
        &mut Registry::default(),
    );
    #[expect(clippy::disallowed_methods, reason = "a test ends it")]
    tokio::spawn(relay.run(stop.clone()))
}

async fn is_empty(rig: &Rig) -> bool {
    let left: i64 = sqlx::query_scalar("select count(*) from outbox")
        .fetch_one(&mut rig.admin().await)
        .await
        .unwrap();
    left == 0
}

#[tokio::test]
async fn what_is_rolled_back_has_not_happened() {
    let rig = Rig::shared(|_| {}).await;
    let key = Uuid::now_v7();

    let failed: Result<(), Error> = rig
        .writer()
        .transaction(|mut tx| async move {
            emit(&mut tx, [event(key, 1)]).await?;
            Err(Error::LeaseLost)
        })
        .await;

    failed.unwrap_err();
    assert!(is_empty(&rig).await);
}

#[tokio::test]
async fn several_relays_deliver_each_event_once_and_in_order() {
    let rig = Rig::shared(|_| {}).await;
    let (keys, sink) = ([Uuid::now_v7(), Uuid::now_v7()], Recorder::default());
    let stop = CancellationToken::new();
    let relays: Vec<_> = (0..3).map(|_| relay(&rig.cluster, &sink, &stop)).collect();

    for key in keys {
        emit_each(&rig, key, 0..50).await;
    }
    until("the outbox is empty", async || is_empty(&rig).await).await;
    stop.cancel();
    for relay in relays {
        relay.await.unwrap();
    }

    for key in keys {
        assert_eq!(sink.numbers(key), Vec::from_iter(0..50));
    }
}

#[tokio::test]
async fn what_cannot_be_delivered_waits_and_keeps_its_order() {
    let rig = Rig::shared(|_| {}).await;
    let (key, sink) = (Uuid::now_v7(), Recorder::default());
    *sink.refusals.lock().unwrap() = 5;
    emit_each(&rig, key, 0..20).await;

    let stop = CancellationToken::new();
    let relay = relay(&rig.cluster, &sink, &stop);
    until("the outbox is empty", async || is_empty(&rig).await).await;
    stop.cancel();
    relay.await.unwrap();

    assert_eq!(sink.numbers(key), Vec::from_iter(0..20));
}

/// Kills a relay in the middle of its `nth` round trip. False when delivering everything takes fewer.
async fn is_survived(nth: usize, moment: Moment) -> bool {
    let rig = Rig::shared(|_| {}).await;
    let meter = Meter::postgres(&rig.database.primary_url, "holdfast").await;
    let meter = meter.unwrap();
    let behind = Config {
        primary_url: SecretString::from(meter.url()),
        ..Config::default()
    };
    let behind = Clusters::new(
        &behind,
        &shards::Config::default(),
        &mut Registry::default(),
    );
    let (key, sink, stop) = (
        Uuid::now_v7(),
        Recorder::default(),
        CancellationToken::new(),
    );
    emit_each(&rig, key, 0..5).await;

    meter.stop_at(nth, moment);
    let victim = relay(&behind.unwrap(), &sink, &stop);
    let is_killed = tokio::select! {
        () = meter.stopped() => true,
        _ = until("the outbox is empty", async || is_empty(&rig).await) => false,
    };
    victim.abort();
    meter.cut();
    let next = relay(&rig.cluster, &sink, &stop);
    until("the outbox is empty", async || is_empty(&rig).await).await;
    stop.cancel();
    next.await.unwrap();

    let mut numbers = sink.numbers(key);
    let deliveries = numbers.len();
    numbers.dedup();
    let mut ids: Vec<_> = sink.delivered().iter().map(|event| event.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "{moment:?} {nth}: {numbers:?}");
    assert!(
        deliveries == 5 || numbers == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4],
        "{numbers:?}"
    );
    is_killed
}

#[tokio::test]
async fn whenever_a_relay_dies_the_next_one_delivers_what_is_left() {
    for moment in [Moment::Asked, Moment::Answered] {
        let mut deaths = 0;
        while is_survived(deaths + 1, moment).await {
            deaths += 1;
            assert!(deaths < ROUND_TRIPS_MAX);
        }
        println!("killed at each of {deaths} round trips, {moment:?}: nothing lost");
        assert!(deaths >= 4, "{deaths}");
    }
}
