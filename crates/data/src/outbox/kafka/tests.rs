//! Against librdkafka's own broker, which speaks the protocol over sockets.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const KEYS: u128 = 5;

fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("shop.orders", 3, 1).unwrap();
    cluster
}

fn sink(cluster: &MockCluster<'_, DefaultProducerContext>, patience: Duration) -> Kafka {
    let config = Config {
        brokers: cluster.bootstrap_servers(),
        topic_prefix: "shop.".to_owned(),
    };
    Kafka::new(&config, patience).unwrap()
}

fn events(numbers: impl IntoIterator<Item = u128>) -> Vec<Event> {
    let event = |number| Event {
        id: Uuid::from_u128(number),
        topic: "orders".to_owned(),
        key: Uuid::from_u128(number % KEYS),
        body: json!({ "number": number.to_string() }),
        at: OffsetDateTime::UNIX_EPOCH + Duration::from_millis(1234),
    };
    numbers.into_iter().map(event).collect()
}

/// What is in the topic: key and id of each, until so many were read.
fn read(cluster: &MockCluster<'_, DefaultProducerContext>, count: usize) -> Vec<(Uuid, Uuid)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "a test")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["shop.orders"]).unwrap();
    let (mut found, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while found.len() < count {
        assert!(Instant::now() < deadline, "{} came", found.len());
        // None is also what joining the group is worth.
        let Some(message) = consumer.poll(LOOK_AGAIN) else {
            continue;
        };
        let message = message.unwrap();
        let uuid = |bytes: &[u8]| Uuid::try_parse_ascii(bytes).unwrap();
        let header = message.headers().unwrap().get(0);
        assert_eq!(header.key, "event-id");
        assert_eq!(message.timestamp().to_millis(), Some(1234));
        found.push((uuid(message.key().unwrap()), uuid(header.value.unwrap())));
    }
    assert!(consumer.poll(LOOK_AGAIN).is_none(), "there is more");
    found
}

/// The ids of each key, in the order in which they came.
fn by_key(found: &[(Uuid, Uuid)]) -> Vec<Vec<u128>> {
    let of = |key| {
        let of_key = found
            .iter()
            .filter(move |(of, _)| *of == Uuid::from_u128(key));
        of_key.map(|(_, id)| id.as_u128()).collect()
    };
    (0..KEYS).map(of).collect()
}

fn in_order(count: u128) -> Vec<Vec<u128>> {
    let of = |key| (0..count).filter(|number| number % KEYS == key).collect();
    (0..KEYS).map(of).collect()
}

#[tokio::test]
async fn events_are_there_in_the_order_of_each_key() {
    let cluster = cluster();
    let sink = sink(&cluster, PATIENCE);

    sink.deliver(&events(0..200)).await.unwrap();
    sink.deliver(&events(200..300)).await.unwrap();

    assert_eq!(by_key(&read(&cluster, 300)), in_order(300));
}

#[tokio::test]
async fn what_a_broker_refuses_for_the_moment_is_there_once_and_in_order() {
    let cluster = cluster();
    let sink = sink(&cluster, PATIENCE);
    let errors = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
    ];
    cluster.request_errors(RDKafkaApiKey::Produce, &errors);

    sink.deliver(&events(0..200)).await.unwrap();

    assert_eq!(by_key(&read(&cluster, 200)), in_order(200));
}

#[tokio::test]
async fn while_the_broker_is_away_nothing_is_delivered_and_nothing_comes_late() {
    let cluster = cluster();
    let sink = sink(&cluster, Duration::from_millis(500));
    cluster.broker_down(1).unwrap();

    let failed = sink.deliver(&events(0..50)).await.unwrap_err();
    let others = events(50..100);
    let given_up = tokio::time::timeout(Duration::from_millis(50), sink.deliver(&others));
    given_up.await.unwrap_err();
    cluster.broker_up(1).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = sink.deliver(&events(100..110)).await {
        assert!(Instant::now() < deadline, "{error}");
    }

    println!("while it was away: {failed}");
    let found = read(&cluster, 10);
    let ids: Vec<_> = found.iter().map(|(_, id)| id.as_u128()).collect();
    assert!(ids.iter().all(|id| (100..110).contains(id)), "{ids:?}");
}
