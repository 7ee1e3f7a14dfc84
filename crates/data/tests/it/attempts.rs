//! Attempts at secrets, counted in Redis.

use std::time::Duration;

use data::attempts::{Attempts, Counted};
use deadpool_redis::redis::cmd;
use futures::future::join_all;

use crate::redis_server::{Server, soon};

const FIRST: Duration = Duration::from_secs(100);
const FREE: [Duration; 2] = [Duration::ZERO; 2];

fn counted<'a>(kind: &'a str, name: &'a str, free: u32) -> Counted<'a> {
    Counted {
        name: (kind, name),
        free,
        delay: FIRST,
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
    let waits: Vec<[Duration; 2]> = join_all(at_once)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();

    let begun = waits.iter().filter(|waits| **waits == FREE).count();
    assert_eq!(begun, 5);
    assert!(
        waits
            .iter()
            .all(|[account, place]| *account <= FIRST && place.is_zero()),
        "{waits:?}"
    );
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

    let begin = async || attempts.begin(account, place, soon()).await.unwrap();

    let mut waits = Vec::new();
    for _ in 0..4 {
        assert_eq!(begin().await, FREE);
        let [wait, _] = begin().await;
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
    let begin = async |name, place| {
        let account = counted("account", name, 5);
        attempts.begin(account, place, soon()).await.unwrap()
    };

    for _ in 0..100 {
        assert_eq!(begin("a", place).await, FREE);
        let account = counted("account", "a", 5);
        attempts.was_right(account, place, soon()).await.unwrap();
    }
    let wrong = [
        begin("b", place).await,
        begin("c", place).await,
        begin("d", place).await,
    ];
    let [account, then] = begin("e", place).await;

    assert_eq!(wrong, [FREE; 3]);
    assert!(account.is_zero());
    assert!(!then.is_zero(), "the place has had its three");
    let elsewhere = counted("address", "elsewhere", 3);
    assert_eq!(begin("e", elsewhere).await, FREE);
}
