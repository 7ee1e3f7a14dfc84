//! Attempts at secrets, counted in Redis.

use std::time::Duration;

use data::attempts::{Attempts, Counted};
use deadpool_redis::redis::cmd;
use futures::future::join_all;

use crate::redis_server::{Server, soon};

fn counted<'a>(kind: &'a str, name: &'a str, free: u32) -> Counted<'a> {
    Counted {
        name: (kind, name),
        free,
        delay: Duration::from_secs(100),
        delay_max: Duration::from_secs(350),
        forget_after: Duration::from_secs(1_000),
    }
}

#[tokio::test]
async fn a_thousand_at_once_from_two_processes_are_as_many_as_are_free() {
    let server = Server::start().await;
    let clients = [server.connected().await, server.connected().await];
    let processes = clients
        .each_ref()
        .map(|client| Attempts::new(client.redis.clone()));
    let (account, place) = (counted("account", "a", 5), counted("address", "b", 1_000));

    let at_once = (0..1_000).map(|n| processes[n % 2].begin(account, place, soon()));
    let waits: Vec<Duration> = join_all(at_once)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();

    let begun = waits.iter().filter(|wait| wait.is_zero()).count();
    assert_eq!(begun, 5);
    assert!(waits.iter().all(|wait| *wait <= account.delay), "{waits:?}");
    let mut count = cmd("HGET");
    count.arg("holdfast:attempts:address:b").arg("attempts");
    let counted: u32 = server.ask(&count).await;
    assert_eq!(counted, 5, "a refused attempt counts against nobody");
}

#[tokio::test]
async fn each_wait_is_twice_the_one_before_up_to_the_longest() {
    let server = Server::start().await;
    let client = server.connected().await;
    let attempts = Attempts::new(client.redis.clone());
    let (account, place) = (counted("account", "a", 1), counted("address", "b", 1_000));
    let key = "holdfast:attempts:account:a";

    let mut waits = Vec::new();
    for _ in 0..4 {
        assert!(
            attempts
                .begin(account, place, soon())
                .await
                .unwrap()
                .is_zero()
        );
        let wait = attempts.begin(account, place, soon()).await.unwrap();
        waits.push(wait.as_secs_f64().ceil() as u64 / 50 * 50);
        // As if the wait had passed.
        let _: u32 = server.ask(cmd("HDEL").arg(key).arg("until")).await;
    }

    assert_eq!(waits, [100, 200, 350, 350]);
    let ttl: u64 = server.ask(cmd("PTTL").arg(key)).await;
    assert!((1..=1_000_000).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_right_attempt_frees_what_was_tried_and_is_not_held_against_the_place() {
    let server = Server::start().await;
    let client = server.connected().await;
    let attempts = Attempts::new(client.redis.clone());
    let place = counted("address", "b", 3);
    let begin = async |name| {
        let account = counted("account", name, 5);
        attempts.begin(account, place, soon()).await.unwrap()
    };

    for _ in 0..100 {
        assert!(begin("a").await.is_zero());
        let account = counted("account", "a", 5);
        attempts.was_right(account, place, soon()).await.unwrap();
    }
    let wrong = [begin("b").await, begin("c").await, begin("d").await];
    let then = begin("e").await;

    assert_eq!(wrong, [Duration::ZERO; 3]);
    assert!(!then.is_zero(), "the place has had its three");
    let elsewhere = counted("address", "elsewhere", 3);
    let account = counted("account", "e", 5);
    assert!(
        attempts
            .begin(account, elsewhere, soon())
            .await
            .unwrap()
            .is_zero()
    );
}
