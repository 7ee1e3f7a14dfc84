//! The feed as several processes deal it out, and what is left of it when Redis goes away, forgets, or is slow to tell.

use data::feed::{
    Arrival, Config, Delivery, Event, Feed, Hub, Interest, Subscriber, Token, TooSlow,
};
use deadpool_redis::redis::cmd;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::redis_server::{PATIENCE, Server, Watched, metric, soon, until};

const TOPIC: &str = "stock";
const OTHER: &str = "orders";

/// One process that deals out the feed.
struct Process {
    feed: Feed,
    hub: Hub,
    registry: Registry,
    _client: Watched,
    _tasks: JoinSet<()>,
}

impl Process {
    async fn start(server: &Server) -> Self {
        Self::with(server, &Config::default()).await
    }

    async fn with(server: &Server, config: &Config) -> Self {
        let client = server.connected().await;
        let mut registry = Registry::default();
        let feed = Feed::new(config, client.redis.clone());
        let hub = Hub::new(&feed, &[OTHER, TOPIC], &mut registry);
        let mut tasks = JoinSet::new();
        tasks.spawn(hub.clone().run(CancellationToken::new()));
        let process = Self {
            feed,
            hub,
            registry,
            _client: client,
            _tasks: tasks,
        };
        until("it hears", async || process.hub.is_live()).await;
        process
    }

    fn repairs(&self) -> f64 {
        metric(&self.registry, r#"feed_repairs_total{topic="stock"}"#)
    }

    fn refetches(&self) -> f64 {
        metric(&self.registry, r#"feed_refetches_total{topic="stock"}"#)
    }

    /// One that comes for the first time, or back with a token.
    async fn join(&self, resume: Option<&str>) -> Subscriber {
        self.join_with(Interest::All, resume, 1 << 20).await
    }

    async fn join_with(
        &self,
        interest: Interest,
        resume: Option<&str>,
        queue_bytes_max: usize,
    ) -> Subscriber {
        let token = resume.map(|text| Token::parse(text).unwrap());
        let arrival = Arrival {
            wanted: &[(TOPIC, interest)],
            resume: token.as_ref(),
            queue_bytes_max,
            deadline: soon(),
        };
        self.hub.join(arrival).await
    }

    /// Publishes one event for each number, all of one key.
    async fn publish(&self, numbers: impl IntoIterator<Item = u64>) {
        self.publish_of(Uuid::nil(), numbers).await;
    }

    async fn publish_of(&self, key: Uuid, numbers: impl IntoIterator<Item = u64>) {
        let numbers: Vec<_> = numbers.into_iter().collect();
        let bodies: Vec<_> = numbers.iter().map(u64::to_string).collect();
        let events = numbers.iter().zip(&bodies).map(|(number, body)| Event {
            id: Uuid::from_u128(u128::from(*number)),
            key,
            body,
        });
        let events: Vec<_> = events.collect();
        self.feed.publish(TOPIC, &events, soon()).await.unwrap();
    }
}

async fn next(subscriber: &mut Subscriber) -> Result<Delivery, TooSlow> {
    let next = async {
        loop {
            if let Some(delivery) = subscriber.try_next()? {
                return Ok(delivery);
            }
            subscriber.filled().await;
        }
    };
    timeout(PATIENCE, next).await.expect("nothing came")
}

/// The numbers of the next messages, up to this one.
async fn up_to(subscriber: &mut Subscriber, last: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        match next(subscriber).await.unwrap() {
            Delivery::Message { message, .. } => numbers.push(message.body.parse().unwrap()),
            Delivery::Refetch { .. } => panic!("lost after {numbers:?}"),
        }
    }
    numbers
}

async fn is_told_to_refetch(subscriber: &mut Subscriber) -> bool {
    matches!(next(subscriber).await, Ok(Delivery::Refetch { topic }) if topic == TOPIC)
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

#[tokio::test]
async fn a_message_comes_to_every_process_and_there_to_whom_it_concerns() {
    let server = Server::start().await;
    let (here, there) = (Process::start(&server).await, Process::start(&server).await);
    let [ours, others] = [1, 2].map(Uuid::from_u128);
    let mut all = there.join(None).await;
    let mut one = there.join_with(Interest::Key(ours), None, 1 << 20).await;

    here.publish_of(others, [1]).await;
    here.publish_of(ours, [2, 3]).await;
    here.publish_of(others, [4]).await;
    here.publish_of(ours, [5]).await;

    assert_eq!(up_to(&mut all, 5).await, [1, 2, 3, 4, 5]);
    assert_eq!(up_to(&mut one, 5).await, [2, 3, 5]);
    let clients: String = server
        .ask(cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub"))
        .await;
    let subscriptions = clients.lines().filter(|line| line.contains(" sub=2 "));
    assert_eq!(
        subscriptions.count(),
        2,
        "one per process and topic: {clients}"
    );
}

#[tokio::test]
async fn who_comes_back_to_any_process_gets_what_was_missed_once_and_in_order() {
    let server = Server::start().await;
    let (first, second) = (Process::start(&server).await, Process::start(&server).await);
    let mut before = first.join(None).await;
    first.publish(1..=10).await;
    assert_eq!(up_to(&mut before, 10).await, numbers(1..=10));
    let token = before.token();
    drop(before);

    first.publish(11..=30).await;
    let third = Process::start(&server).await;
    for process in [&first, &second, &third] {
        let mut after = process.join(Some(&token)).await;
        assert_eq!(up_to(&mut after, 30).await, numbers(11..=30));
    }
    let mut after = third.join(Some(&token)).await;
    second.publish(31..=40).await;

    assert_eq!(up_to(&mut after, 40).await, numbers(11..=40));
    assert_eq!(third.refetches(), 0.0);
}

#[tokio::test]
async fn what_the_process_no_longer_has_is_read_from_the_stream() {
    let server = Server::start().await;
    let small = Config {
        ring_bytes_max: 4096,
        ..Config::default()
    };
    let process = Process::with(&server, &small).await;
    let ours = Uuid::from_u128(1);
    let before = process.join(None).await;
    let token = before.token();

    for start in (1..=1200).step_by(100) {
        process.publish(start..start + 98).await;
        process.publish_of(ours, [start + 99]).await;
    }
    let mut all = process.join(Some(&token)).await;
    let mut one = process
        .join_with(Interest::Key(ours), Some(&token), 1 << 20)
        .await;

    let expected: Vec<_> = (1..=1200).filter(|number| number % 100 != 99).collect();
    assert_eq!(up_to(&mut all, 1200).await, expected);
    assert_eq!(up_to(&mut one, 1200).await.len(), 12);
}

#[tokio::test]
async fn what_nobody_has_any_more_is_a_refetch_and_it_goes_on_from_there() {
    let server = Server::start().await;
    let small = Config {
        ring_bytes_max: 4096,
        stream_max: 100,
        ..Config::default()
    };
    let process = Process::with(&server, &small).await;
    let token = process.join(None).await.token();

    process.publish(1..=1000).await;
    let mut too_old = process.join(Some(&token)).await;
    assert!(is_told_to_refetch(&mut too_old).await);
    process.publish([1001]).await;

    let others = format!("{OTHER}.1.2.3");
    let mut unknown = process.join(Some(&others)).await;
    assert!(is_told_to_refetch(&mut unknown).await);
    let end = Uuid::from_u128(u128::from(u64::MAX));
    let last = [Event {
        id: end,
        key: end,
        body: "1002",
    }];
    process.feed.publish(TOPIC, &last, soon()).await.unwrap();

    let came = up_to(&mut too_old, 1002).await;
    assert!(came.ends_with(&[1001, 1002]), "{came:?}");
    // Whatever had not been dealt out when it came, and nothing twice.
    let came = up_to(&mut unknown, 1002).await;
    assert!(came.windows(2).all(|two| two[0] + 1 == two[1]), "{came:?}");
}

#[tokio::test]
async fn who_has_missed_more_than_may_wait_for_one_is_told_to_refetch() {
    let server = Server::start().await;
    let process = Process::start(&server).await;
    let token = process.join(None).await.token();
    process.publish(1..=100).await;

    let mut short = process.join_with(Interest::All, Some(&token), 4096).await;

    assert!(is_told_to_refetch(&mut short).await);
}

#[tokio::test]
async fn a_connection_that_is_cut_again_and_again_loses_nothing_and_repeats_nothing() {
    const MESSAGES: u64 = 3000;
    let server = Server::start().await;
    let (here, there) = (Process::start(&server).await, Process::start(&server).await);
    let mut subscriber = there.join(None).await;
    let before = there.repairs();
    let mut cuts: u64 = 0;

    let publishing = async {
        for start in (1..=MESSAGES).step_by(10) {
            // The publisher's connection is cut as well; what may not have been published is published again.
            until("it is published", async || {
                let bodies: Vec<_> = (start..start + 10)
                    .map(|number| number.to_string())
                    .collect();
                let events = bodies.iter().map(|body| Event {
                    id: Uuid::from_u128(body.parse().unwrap()),
                    key: Uuid::nil(),
                    body,
                });
                let events: Vec<_> = events.collect();
                here.feed.publish(TOPIC, &events, soon()).await.is_ok()
            })
            .await;
            if start % 300 == 1 {
                let kill = cmd("CLIENT")
                    .arg("KILL")
                    .arg("TYPE")
                    .arg("pubsub")
                    .to_owned();
                cuts += server.ask::<u64>(&kill).await;
            }
        }
    };
    let (came, ()) = tokio::join!(up_to(&mut subscriber, MESSAGES), publishing);

    println!(
        "{cuts} connections cut, {} repairs, {} messages",
        there.repairs() - before,
        came.len()
    );
    assert_eq!(came, numbers(1..=MESSAGES));
    assert!(there.repairs() > before + 1.0);
    assert_eq!(there.refetches(), 0.0);
}

#[tokio::test]
async fn a_redis_that_has_forgotten_is_a_new_beginning_for_all() {
    let mut server = Server::start().await;
    let process = Process::start(&server).await;
    let mut subscriber = process.join(None).await;
    process.publish(1..=3).await;
    assert_eq!(up_to(&mut subscriber, 3).await, [1, 2, 3]);
    let token = subscriber.token();

    let _: () = server.ask(&cmd("FLUSHALL")).await;
    process.publish([4]).await;
    assert!(is_told_to_refetch(&mut subscriber).await);
    let mut back = process.join(Some(&token)).await;
    assert!(is_told_to_refetch(&mut back).await);
    process.publish([5]).await;
    assert_eq!(up_to(&mut subscriber, 5).await, [5]);

    server.restart().await;
    assert!(is_told_to_refetch(&mut subscriber).await);
    until("it can be published", async || {
        let id = Uuid::from_u128(6);
        let event = Event {
            id,
            key: id,
            body: "6",
        };
        process.feed.publish(TOPIC, &[event], soon()).await.is_ok()
    })
    .await;
    assert_eq!(up_to(&mut subscriber, 6).await, [6]);
}

#[tokio::test]
async fn a_slow_client_is_cut_off_and_the_others_go_on() {
    let server = Server::start().await;
    let process = Process::start(&server).await;
    let mut quick = process.join(None).await;
    let mut slow = process.join_with(Interest::All, None, 4096).await;
    let cut = slow.cut();

    process.publish(1..=100).await;

    assert_eq!(up_to(&mut quick, 100).await, numbers(1..=100));
    timeout(PATIENCE, cut).await.expect("it is not cut off");
    assert_eq!(slow.try_next().err(), Some(TooSlow));
}

#[tokio::test]
async fn an_event_that_is_published_twice_is_told_once() {
    let server = Server::start().await;
    let process = Process::start(&server).await;
    let mut subscriber = process.join(None).await;

    process.publish([1, 2, 1, 2]).await;
    process.publish([3]).await;

    assert_eq!(up_to(&mut subscriber, 3).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_token_does_not_grow_old_while_nothing_comes_for_its_client() {
    let server = Server::start().await;
    let process = Process::start(&server).await;
    let ours = Interest::Key(Uuid::from_u128(1));
    let mut quiet = process.join_with(ours, None, 1 << 20).await;
    let mut all = process.join(None).await;
    let first = quiet.token();

    process.publish([1]).await;
    up_to(&mut all, 1).await;

    assert!(quiet.catch_up());
    assert_eq!(quiet.token(), all.token());
    assert_ne!(quiet.token(), first);
    assert!(!quiet.catch_up());
}

#[tokio::test]
async fn an_event_that_is_too_large_is_refused_with_all_that_come_with_it() {
    let server = Server::start().await;
    let process = Process::start(&server).await;
    let body = "x".repeat(Config::default().event_bytes_max + 1);
    let id = Uuid::nil();
    let [fits, large] = ["1", body.as_str()].map(|body| Event { id, key: id, body });

    let refused = process.feed.publish(TOPIC, &[fits, large], soon()).await;

    assert!(!refused.unwrap_err().is_transient());
    assert_eq!(server.calls("xadd").await, 0);
}

#[tokio::test]
async fn nothing_asks_redis_for_what_a_process_has() {
    let server = Server::start().await;
    let process = Process::start(&server).await;
    let token = process.join(None).await.token();
    process.publish(1..=10).await;
    let mut first = process.join(Some(&token)).await;
    up_to(&mut first, 10).await;
    let before = server.calls("evalsha").await;

    for _ in 0..200 {
        let mut back = process.join(Some(&token)).await;
        assert_eq!(up_to(&mut back, 10).await, numbers(1..=10));
    }

    assert_eq!(server.calls("evalsha").await, before);
}
