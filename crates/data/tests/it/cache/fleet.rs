//! Several processes that miss the same key: how many load, and what the others do meanwhile.

use std::future::{pending, ready};
use std::time::Duration;

use data::cache::Config;
use deadpool_redis::redis::cmd;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{KEY, Process};
use crate::redis_server::{Server, soon, until};

/// Long enough that it never ends by itself in a test.
pub const LOCK: Duration = Duration::from_secs(10);

pub async fn fleet<const N: usize>(server: &Server, config: &Config) -> [Process; N] {
    let mut processes = Vec::new();
    for _ in 0..N {
        let process = Process::with(server.connected().await, config);
        processes.push(process.listening().await);
    }
    processes
        .try_into()
        .unwrap_or_else(|_| unreachable!("as many were made"))
}

fn locking(load_lock: Duration) -> Config {
    Config {
        load_lock,
        ..Config::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_misses_on_three_processes_are_one_load_each_at_most_and_two_in_all() {
    let server = Server::start().await;
    let processes: [Process; 3] = fleet(&server, &locking(LOCK)).await;
    let mut readers = JoinSet::new();

    for process in &processes {
        process.loads.always(|_| async {
            sleep(Duration::from_millis(50)).await;
            Ok(Some("loaded".to_owned()))
        });
    }
    for number in 0..1_000 {
        let things = processes[number % 3].things.clone();
        readers.spawn(async move { things.get(&"a".to_owned(), soon()).await });
    }

    for found in readers.join_all().await {
        assert_eq!(found.unwrap().unwrap().as_str(), "loaded");
    }
    let loads = processes.each_ref().map(|process| process.loads.count());
    println!("1,000 misses on 3 processes: {loads:?} loads");
    assert!(loads.iter().all(|loads| *loads <= 1), "{loads:?}");
    assert!((1..=2).contains(&loads.iter().sum::<u32>()), "{loads:?}");
}

#[tokio::test]
async fn a_miss_is_two_round_trips_and_a_hit_is_one() {
    let server = Server::start().await;
    let [one, other] = fleet(&server, &Config::default()).await;
    // Has the script sent whole, which the first use after a start of Redis costs.
    one.loads.find(None);
    one.find("b").await.unwrap();
    let _: () = server.ask(cmd("CONFIG").arg("RESETSTAT")).await;
    let sent = async || (server.calls("set").await, server.calls("evalsha").await);

    one.get(Some("loaded")).await;
    let of_miss = sent().await;
    other.cached().await;
    other.cached().await;
    let of_hit = sent().await;

    // The script that fills stores with a SET of its own. It is sent whole once after a start of Redis.
    println!(
        "SET and EVALSHA: {of_miss:?} for a miss, then {of_hit:?} after a hit of Redis and one of the process"
    );
    assert_eq!(of_miss, (2, 1));
    assert_eq!(of_hit, (3, 1));
    assert_eq!(server.calls("get").await, 1, "the one of the script");
}

#[tokio::test]
async fn a_process_that_never_finishes_is_not_waited_for_for_long() {
    let server = Server::start().await;
    let [stuck, other] = fleet(&server, &locking(Duration::from_millis(100))).await;
    stuck.loads.once(pending());

    let mut load = Box::pin(stuck.find("a"));
    until("the load began", async || {
        assert!(futures::poll!(&mut load).is_pending());
        stuck.loads.count() > 0
    })
    .await;
    let found = other.get(Some("loaded")).await;

    assert_eq!(found.as_deref(), Some("loaded"));
    assert_eq!(other.loads.count(), 1);
}

#[tokio::test]
async fn a_waiting_process_keeps_half_of_its_time_for_a_load_of_its_own() {
    let server = Server::start().await;
    let [stuck, other] = fleet(&server, &locking(LOCK)).await;
    stuck.loads.once(pending());
    other.loads.find(Some("loaded"));

    let mut load = Box::pin(stuck.find("a"));
    until("the load began", async || {
        assert!(futures::poll!(&mut load).is_pending());
        stuck.loads.count() > 0
    })
    .await;
    let deadline = Instant::now() + Duration::from_secs(4);
    let found = other.things.get(&"a".to_owned(), deadline).await;

    assert_eq!(found.unwrap().unwrap().as_str(), "loaded");
    assert_eq!(other.outcome("waits", "in_vain"), 1);
}

#[tokio::test]
async fn a_process_whose_load_failed_lets_the_next_one_load_at_once() {
    let server = Server::start().await;
    let [one, other] = fleet(&server, &locking(LOCK)).await;
    one.loads.fail();

    let failed = one.find("a").await;
    let found = other.get(Some("loaded")).await;

    assert!(failed.is_err());
    assert_eq!(found.as_deref(), Some("loaded"));
    assert_eq!(other.outcome("waits", "in_vain"), 0);
}

#[tokio::test]
async fn a_process_is_not_held_up_by_a_claim_it_left_behind() {
    let server = Server::start().await;
    let [process] = fleet(&server, &locking(LOCK)).await;
    process.loads.once(pending());
    let hurried = Instant::now() + Duration::from_millis(50);

    let late = process.things.get(&"a".to_owned(), hurried).await;
    let found = process.get(Some("loaded")).await;

    assert!(late.is_err());
    assert_eq!(found.as_deref(), Some("loaded"));
    assert_eq!(process.outcome("waits", "in_vain"), 0);
    assert_eq!(Process::new(&server).await.cached().await, found);
}

#[tokio::test]
async fn a_load_that_lost_its_claim_does_not_overwrite_what_came_after_it() {
    let server = Server::start().await;
    let [slow, other] = fleet(&server, &locking(Duration::from_millis(20))).await;
    let (release, released) = oneshot::channel();
    slow.loads.once(async {
        released.await.unwrap();
        Ok(Some("old".to_owned()))
    });

    let mut load = Box::pin(slow.ask());
    until("the claim is over", async || {
        assert!(futures::poll!(&mut load).is_pending());
        slow.loads.count() > 0 && !server.ask::<bool>(cmd("EXISTS").arg(KEY)).await
    })
    .await;
    other.get(Some("new")).await;
    release.send(()).unwrap();

    assert_eq!(load.await.as_deref(), Some("new"));
    assert_eq!(
        Process::new(&server).await.cached().await.as_deref(),
        Some("new")
    );
}

#[tokio::test]
async fn without_a_lock_nobody_waits() {
    let server = Server::start().await;
    let [stuck, other] = fleet(&server, &locking(Duration::ZERO)).await;
    stuck.loads.once(pending());

    let mut load = Box::pin(stuck.find("a"));
    until("the load began", async || {
        assert!(futures::poll!(&mut load).is_pending());
        stuck.loads.count() > 0
    })
    .await;
    let found = other.get(Some("loaded")).await;

    assert_eq!(found.as_deref(), Some("loaded"));
    assert_eq!(server.calls("set").await, 1, "the one of the fill");
}

#[tokio::test]
async fn absence_is_shared_by_all_processes() {
    let server = Server::start().await;
    let [one, other] = fleet(&server, &Config::default()).await;

    one.loads.always(|_| ready(Ok(None)));
    let (first, second) = (one.ask().await, other.cached().await);

    assert_eq!((first, second), (None, None));
    assert_eq!(one.loads.count(), 1);
}
