//! Values near and past their time: refreshed before anybody waits, and served when nothing newer can be had.

use std::sync::Arc;
use std::time::Duration;

use data::Error;
use data::cache::{Config, Lifetime};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::Process;
use super::process::away;
use crate::redis_server::{Server, until};

const BRIEF: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(60);

async fn living(server: &Server, lifetime: Lifetime, config: &Config) -> Process {
    Process::living(server.connected().await, config, lifetime)
        .listening()
        .await
}

/// Values that are stale almost at once, and served all the same.
fn stale() -> Lifetime {
    Lifetime {
        fresh: BRIEF,
        stale: LONG,
        on_error: LONG,
    }
}

/// Values that must be loaded again almost at once, and are served if that fails.
fn expired() -> Lifetime {
    Lifetime {
        stale: Duration::ZERO,
        ..stale()
    }
}

/// Reads without a pause until the value was loaded again; whether nobody saw it stale.
async fn is_refreshed_in_time(server: &Server) -> bool {
    let lifetime = Lifetime {
        fresh: Duration::from_secs(3),
        ..stale()
    };
    let process = living(server, lifetime, &Config::default()).await;
    process.loads.always(|_| async {
        sleep(Duration::from_millis(300)).await;
        Ok(Some("loaded".to_owned()))
    });

    process.ask().await;
    let begun = Instant::now();
    until("it is refreshed", async || {
        process.ask().await;
        process.outcome("refreshes", "refreshed") > 0
    })
    .await;

    println!(
        "fresh for 3 s, a load takes 300 ms: loaded again after {:?}",
        begun.elapsed()
    );
    process.outcome("stale", "refreshing") == 0 && process.counted("local", "miss") == 1
}

#[tokio::test]
async fn a_value_is_refreshed_before_its_time_and_nobody_waits() {
    // A machine that stands still for a second makes every reader late.
    for _ in 0..5 {
        if is_refreshed_in_time(&Server::start().await).await {
            return;
        }
    }
    panic!("it was stale each time before it was refreshed");
}

#[tokio::test]
async fn one_of_several_processes_refreshes_and_the_others_take_it_over() {
    let server = Server::start().await;
    let quick = Config {
        refresh_timeout: BRIEF,
        ..Config::default()
    };
    let one = living(&server, stale(), &quick).await;
    let other = living(&server, stale(), &quick).await;
    one.get(Some("old")).await;
    other.cached().await;

    one.loads.find(Some("new"));
    until("it is refreshed", async || {
        one.ask().await.as_deref() == Some("new")
    })
    .await;
    let lasting = Lifetime {
        fresh: LONG,
        ..stale()
    };
    let keeper = living(&server, lasting, &quick).await;
    keeper.put("newer").await;
    until("the other has it", async || {
        other.ask().await.as_deref() == Some("newer")
    })
    .await;

    assert_eq!(other.loads.count(), 0);
}

#[tokio::test]
async fn a_stale_value_is_served_at_once_while_it_is_loaded_again() {
    let server = Server::start().await;
    let process = living(&server, stale(), &Config::default()).await;
    let (release, released) = oneshot::channel();
    process.get(Some("old")).await;
    process.loads.once(async {
        released.await.unwrap();
        Ok(Some("new".to_owned()))
    });

    until("it is being refreshed", async || {
        assert_eq!(process.ask().await.as_deref(), Some("old"));
        process.loads.count() == 2
    })
    .await;
    let found = process.find("a").await.unwrap().unwrap();
    release.send(()).unwrap();

    assert_eq!((found.as_str(), found.is_degraded()), ("old", false));
    until("the new value is seen", async || {
        process.ask().await.as_deref() == Some("new")
    })
    .await;
    assert!(process.outcome("stale", "refreshing") > 0);
    assert_eq!(process.counted("local", "miss"), 1);
}

#[tokio::test]
async fn a_value_that_cannot_be_loaded_again_is_served_and_marked() {
    for lifetime in [stale(), expired()] {
        let server = Server::start().await;
        let quick = Config {
            refresh_timeout: BRIEF,
            ..Config::default()
        };
        let process = living(&server, lifetime, &quick).await;
        process.get(Some("old")).await;
        process.loads.fail();

        until("it is degraded", async || {
            let found = process.find("a").await.unwrap().unwrap();
            assert_eq!(found.as_str(), "old");
            found.is_degraded()
        })
        .await;
        assert!(process.outcome("stale", "degraded") > 0);
        assert!(process.outcome("loads", "failed") > 0);

        process.loads.find(Some("new"));
        until("it has recovered", async || {
            let found = process.find("a").await.unwrap().unwrap();
            found.as_str() == "new" && !found.is_degraded()
        })
        .await;
    }
}

#[tokio::test]
async fn a_degraded_value_stays_marked_while_other_keys_can_be_loaded() {
    let server = Server::start().await;
    let process = living(&server, expired(), &Config::default()).await;
    process.get(Some("old")).await;
    process.loads.always(|key| {
        let found = if key == "a" {
            Err(away())
        } else {
            Ok(Some("loaded".to_owned()))
        };
        std::future::ready(found)
    });
    let is_degraded = async || process.find("a").await.unwrap().unwrap().is_degraded();

    until("it is degraded", is_degraded).await;
    process.find("b").await.unwrap();

    assert!(is_degraded().await);
}

#[tokio::test]
async fn a_load_that_hangs_leaves_time_to_serve_the_old_value() {
    let server = Server::start().await;
    let process = living(&server, expired(), &Config::default()).await;
    process.get(Some("old")).await;
    process.loads.always(|_| std::future::pending());

    until("it is degraded", async || {
        let deadline = Instant::now() + Duration::from_secs(4);
        let found = process.things.get(&"a".to_owned(), deadline).await;
        found.unwrap().unwrap().is_degraded()
    })
    .await;
}

#[tokio::test]
async fn a_bug_is_not_hidden_by_an_old_value() {
    let server = Server::start().await;
    let process = living(&server, expired(), &Config::default()).await;
    process.get(Some("old")).await;
    process.loads.always(|_| {
        let error = serde_json::from_str::<u8>("x").unwrap_err();
        std::future::ready(Err(Error::Encoding(Arc::new(error))))
    });

    until("it fails", async || process.find("a").await.is_err()).await;
}

#[tokio::test]
async fn refreshes_are_bounded_in_number() {
    let server = Server::start().await;
    let narrow = Config {
        refreshes_max: 1,
        refresh_timeout: LONG / 2,
        ..Config::default()
    };
    let process = living(&server, stale(), &narrow).await;
    let keys = ["a", "b", "c"];
    process.loads.find(Some("old"));
    for key in keys {
        process.find(key).await.unwrap();
    }
    process.loads.always(|_| std::future::pending());

    until("one is refreshed and two are refused", async || {
        for key in keys {
            assert_eq!(process.find(key).await.unwrap().unwrap().as_str(), "old");
        }
        process.outcome("refreshes", "refused") == 2
    })
    .await;
    until("one has begun", async || process.loads.count() == 4).await;
    process.cache.end().await;
}

#[tokio::test]
async fn a_refresh_that_began_before_a_write_does_not_undo_it() {
    let server = Server::start().await;
    let process = living(&server, stale(), &Config::default()).await;
    let (release, released) = oneshot::channel();
    process.get(Some("old")).await;
    process.loads.once(async {
        released.await.unwrap();
        Ok(Some("loaded before the write".to_owned()))
    });
    until("it is being refreshed", async || {
        process.ask().await;
        process.loads.count() == 2
    })
    .await;

    process.loads.find(Some("loaded after the write"));
    process.put("written").await;
    release.send(()).unwrap();
    until("the refresh is over", async || {
        let found = process.ask().await.unwrap();
        assert_ne!(found, "loaded before the write");
        process.outcome("refreshes", "refreshed") > 0
    })
    .await;

    let other = living(&server, stale(), &Config::default()).await;
    assert_ne!(
        other.ask().await.as_deref(),
        Some("loaded before the write")
    );
}
