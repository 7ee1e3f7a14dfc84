//! A Redis that is there, but late: it is left alone for a while, and one command at a time tries it again.

use std::time::Duration;

use data::Error;
use data::redis::Config;
use deadpool_redis::redis::cmd;
use devstack::{Fault, Stack, Target};
use futures::future::join_all;
use resilience::breaker::{self, State};
use resilience::bulkhead;
use tokio::time::{Instant, timeout};

use crate::redis_server::{PATIENCE, Server, Watched, connected, soon, until};

const FULL: &str = r#"redis_command_duration_seconds_count{outcome="full"}"#;
const TIMED_OUT: &str = r#"redis_command_duration_seconds_count{outcome="timeout"}"#;

/// In each direction. A round trip takes twice as long.
fn late(delay: Duration) -> Fault {
    Fault::Latency {
        delay,
        jitter: Duration::ZERO,
    }
}

/// Nobody but the test asks anything.
fn unchecked(stack: &Stack) -> Config {
    Config {
        url: stack.redis_url().into(),
        check_interval: Duration::from_secs(60),
        ..Config::default()
    }
}

async fn ping(client: &Watched) -> Result<String, Error> {
    client.redis.query(&cmd("PING"), soon()).await
}

async fn connection_id(client: &Watched) -> i64 {
    let id = client.redis.query(cmd("CLIENT").arg("ID"), soon()).await;
    id.unwrap()
}

fn state(client: &Watched) -> State {
    client.redis.breaker().1.state()
}

async fn is_due(client: &Watched) {
    until("a command may try it", async || {
        client.redis.breaker().1.admits()
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_answers_late_is_left_alone_and_tried_by_one_command_at_a_time() {
    let stack = Stack::start().await.unwrap();
    let config = Config {
        command_timeout: PATIENCE,
        breaker: breaker::Config {
            slow_after: Duration::from_millis(200),
            open_min: Duration::from_millis(200),
            open_max: Duration::from_millis(400),
            ..unchecked(&stack).breaker
        },
        ..unchecked(&stack)
    };
    let client = connected(&config).await;
    let connection = connection_id(&client).await;

    stack
        .proxy(Target::Redis)
        .set(late(Duration::from_millis(150)))
        .await;
    // Side by side they are one stall, and no outage.
    assert!(
        join_all((0..64).map(|_| ping(&client)))
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(state(&client), State::Closed);
    until("it is left alone", async || {
        let _ = ping(&client).await;
        state(&client) == State::Open
    })
    .await;
    assert!(!client.redis.status().healthy);

    is_due(&client).await;
    let at_once = join_all((0..50).map(|_| ping(&client))).await;
    let asked = at_once.iter().filter(|answer| answer.is_ok()).count();
    println!("of 50 commands at once {asked} asked a late Redis");
    assert_eq!((asked, state(&client)), (1, State::Open));

    is_due(&client).await;
    assert!(
        timeout(Duration::from_millis(1), ping(&client))
            .await
            .is_err()
    );
    assert_eq!(state(&client), State::HalfOpen);
    assert!(
        client.redis.breaker().1.admits(),
        "the place of a cancelled probe is lost"
    );

    stack.proxy(Target::Redis).clear().await;
    until("it is asked again", async || {
        ping(&client).await.is_ok() && state(&client) == State::Closed
    })
    .await;
    assert_eq!(connection_id(&client).await, connection);
    assert!(client.redis.status().healthy);
}

#[tokio::test]
async fn a_redis_two_seconds_late_costs_three_commands_their_timeout_and_no_other_any() {
    let stack = Stack::start().await.unwrap();
    let client = connected(&unchecked(&stack)).await;
    stack
        .proxy(Target::Redis)
        .set(late(Duration::from_secs(2)))
        .await;

    let mut asked = Vec::new();
    until("it is left alone", async || {
        let begun = Instant::now();
        assert!(ping(&client).await.is_err());
        asked.push(begun.elapsed());
        !client.redis.is_connected()
    })
    .await;
    let begun = Instant::now();
    for _ in 0..1000 {
        assert!(ping(&client).await.is_err());
    }
    let refused = begun.elapsed() / 1000;
    stack.proxy(Target::Redis).clear().await;
    let healed = Instant::now();
    until("it is asked again", async || ping(&client).await.is_ok()).await;

    println!(
        "asked {asked:?}, then refused in {refused:?}; asked again {:?} after it was healed",
        healed.elapsed()
    );
    assert_eq!(client.metric(TIMED_OUT), 3.0);
    assert_eq!(state(&client), State::Closed);
}

#[tokio::test]
async fn commands_beyond_the_bulkhead_are_refused_at_once_and_no_place_is_lost() {
    let server = Server::start().await;
    let narrow = Config {
        bulkhead: bulkhead::Config {
            calls_max: 2,
            ..server.config().bulkhead
        },
        check_interval: Duration::from_secs(60),
        ..server.config()
    };
    let client = server.watched(&narrow);
    assert!(client.redis.connected(soon()).await);

    server.pause();
    let abandoned =
        join_all((0..2).map(|_| timeout(Duration::from_millis(1), ping(&client)))).await;
    let begun = Instant::now();
    let (kept, refused) = tokio::join!(join_all((0..2).map(|_| ping(&client))), async {
        let refused = join_all((0..100).map(|_| ping(&client))).await;
        println!("100 commands refused after {:?}", begun.elapsed());
        server.resume();
        refused
    });

    assert!(abandoned.iter().all(Result::is_err));
    assert!(kept.iter().all(Result::is_ok), "{kept:?}");
    let is_full = |answer: &Result<_, Error>| matches!(answer, Err(Error::Unavailable { source: Some(source), .. }) if source.is::<resilience::BulkheadFull>());
    assert!(refused.iter().all(is_full), "{refused:?}");
    assert_eq!(client.metric(FULL), 100.0);
}
