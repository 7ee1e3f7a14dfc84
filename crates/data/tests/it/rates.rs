//! Quotas in Redis: one of them for all processes, and nothing is left behind.

use std::time::Duration;

use data::rates::{Pace, Rates, Taken};
use data::sessions::{self, Quota, Sessions};
use deadpool_redis::redis::cmd;
use uuid::Uuid;

use crate::redis_server::{Server, soon, until};

/// Ten in ten seconds.
const PACE: Pace = Pace {
    interval: Duration::from_secs(1),
    window: Duration::from_secs(10),
};
const ANN: (&str, &str) = ("user-read", "ann");

async fn take(rates: &Rates, who: (&str, &str), given: u32) -> Taken {
    rates.take(who, PACE, given, soon()).await.unwrap()
}

#[tokio::test]
async fn two_processes_take_of_one_quota_and_not_of_anothers() {
    let server = Server::start().await;
    let (one, other) = (server.connected().await, server.connected().await);
    let (one, other) = (
        Rates::new(one.redis.clone()),
        Rates::new(other.redis.clone()),
    );

    let mut granted = 0;
    for _ in 0..10 {
        granted += u32::from(take(&one, ANN, 0).await.granted);
        granted += u32::from(take(&other, ANN, 0).await.granted);
    }
    let bob = take(&other, ("user-read", "bob"), 0).await;
    let ann_writes = take(&other, ("user-write", "ann"), 0).await;

    // As many more as came back meanwhile.
    assert!((10..=12).contains(&granted), "{granted}");
    assert!(bob.granted && ann_writes.granted);
    assert!(bob.whole_in <= PACE.interval, "{bob:?}");
}

#[tokio::test]
async fn what_was_served_before_is_counted_and_never_held_for_longer_than_a_window() {
    let server = Server::start().await;
    let client = server.connected().await;
    let rates = Rates::new(client.redis.clone());

    let some = take(&rates, ANN, 4).await;
    let too_many = take(&rates, ANN, 1_000).await;
    let keys: Vec<String> = server.ask(cmd("KEYS").arg("*")).await;
    let ttl: u64 = server.ask(cmd("PTTL").arg(&keys[0])).await;

    assert!(some.granted && !too_many.granted);
    assert!(some.whole_in > Duration::from_secs(4), "{some:?}");
    assert!(too_many.whole_in <= PACE.window, "{too_many:?}");
    assert_eq!(keys, ["holdfast:rate:user-read:ann"]);
    assert!(ttl <= 10_000, "{ttl}");
}

#[tokio::test]
async fn a_quota_comes_back_and_its_key_goes() {
    let server = Server::start().await;
    let client = server.connected().await;
    let rates = Rates::new(client.redis.clone());
    let brief = Pace {
        interval: Duration::from_millis(200),
        window: Duration::from_millis(400),
    };
    let take = async || rates.take(ANN, brief, 0, soon()).await.unwrap().granted;
    while take().await {}

    until("one came back", take).await;
    until("the key is gone", async || {
        let keys: Vec<String> = server.ask(cmd("KEYS").arg("*")).await;
        keys.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_users_sessions_take_of_one_quota_in_the_round_trip_that_finds_them() {
    let server = Server::start().await;
    let client = server.connected().await;
    let sessions = Sessions::new(&sessions::Config::default(), client.redis.clone());
    let user = Uuid::new_v4();
    let create = async |user| sessions.create(user, "customer", soon()).await.unwrap();
    let (phone, desk, other) = (
        create(user).await,
        create(user).await,
        create(Uuid::new_v4()).await,
    );
    let quota = Quota {
        policy: "user-read",
        pace: PACE,
    };
    let find = async |id| {
        let found = sessions.find(id, Some(quota), soon()).await.unwrap();
        found.unwrap().taken.unwrap()
    };

    let mut granted = 0;
    for _ in 0..10 {
        granted += u32::from(find(&phone).await.granted);
        granted += u32::from(find(&desk).await.granted);
    }

    assert!((10..=12).contains(&granted), "{granted}");
    assert!(find(&other).await.granted);
    let unlimited = sessions.find(&phone, None, soon()).await.unwrap();
    assert_eq!(unlimited.unwrap().taken, None);
}
