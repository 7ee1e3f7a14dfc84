//! Buckets that move from one cluster to another while they are written and read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use data::postgres::shards::{self, Bucket, Buckets, MoveError, Moved, Mover};
use data::postgres::{Clusters, Consistency, Positions};
use futures::future::join_all;
use prometheus_client::registry::Registry;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::time::Instant;
use uuid::Uuid;

use super::rig::{PATIENCE, until};
use super::shards::{TABLES, Two, count, customer, place};

const MOVING: (u16, u16) = (7, 9);
/// Customers in the moving buckets, and as many beside them.
const CUSTOMERS: u16 = 6;

fn mover<'a>(two: &'a Two, say: &'a (dyn Fn(&str) + Sync)) -> Mover<'a> {
    Mover {
        postgres: &two.config,
        shards: &two.shards,
        tables: &TABLES,
        say,
    }
}

fn bucket(number: u16) -> Bucket {
    Bucket::try_from(number).unwrap()
}

async fn moved(two: &Two, (first, last): (u16, u16), target: &str) -> Result<Moved, MoveError> {
    let mover = mover(two, &|step| println!("  {step}"));
    mover.run((bucket(first), bucket(last)), target).await
}

/// What one customer has seen.
#[derive(Default)]
struct Tally {
    orders: i64,
    stale: i64,
    errors: Vec<String>,
    longest: Duration,
}

/// Places orders and counts them under the token of each write, through two processes in turn, as a client behind a
/// balancer does.
async fn shop(processes: [&Clusters; 2], customer: Uuid, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut seen = Positions::default();
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let request = |process: &Clusters, seen: &Positions| {
            let consistency = Consistency::default();
            consistency.require(seen);
            let db = process.db(Instant::now() + Duration::from_secs(15));
            (db.consistent(consistency.clone()), consistency)
        };
        let (db, consistency) = request(processes[turn % 2], &seen);
        let start = Instant::now();
        match place(&db, customer).await {
            Ok(_) => tally.orders += 1,
            Err(error) => tally.errors.push(format!("write: {error}")),
        }
        tally.longest = tally.longest.max(start.elapsed());
        seen = consistency.to_hand_on().unwrap_or(seen);
        let (db, _) = request(processes[(turn + 1) % 2], &seen);
        match count(&db, customer).await {
            Ok(found) => tally.stale += i64::from(found != tally.orders),
            Err(error) => tally.errors.push(format!("read: {error}")),
        }
    }
    tally
}

/// Moves buckets there and back while everybody shops.
async fn there_and_back(two: &Two, stop: &AtomicBool) -> Vec<Moved> {
    let mut moves = Vec::new();
    for target in ["east", "home"] {
        moves.push(moved(two, MOVING, target).await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    moves
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_moves_there_and_back_under_traffic_and_nobody_notices() {
    let mut two = Two::start("512..1023").await;
    let other = two.another(|_| {}).await;
    let customers: Vec<Uuid> = (0..CUSTOMERS)
        .flat_map(|n| [customer(MOVING.0 + n % 3), customer(100 + n)])
        .collect();
    let stop = AtomicBool::new(false);

    let shopping = join_all(
        customers
            .iter()
            .map(|customer| shop([&two.clusters, &other], *customer, &stop)),
    );
    let (tallies, moves) = tokio::join!(shopping, there_and_back(&two, &stop));

    let longest = |of: fn(usize) -> bool| {
        let tallies = tallies.iter().enumerate();
        let chosen = tallies.filter(|(nth, _)| of(*nth));
        chosen.map(|(_, tally)| tally.longest).max().unwrap()
    };
    let orders: i64 = tallies.iter().map(|tally| tally.orders).sum();
    let stale: i64 = tallies.iter().map(|tally| tally.stale).sum();
    println!(
        "{orders} orders of {} customers, {stale} stale reads; longest write {:?} in the moving buckets, {:?} beside them",
        customers.len(),
        longest(|nth| nth % 2 == 0),
        longest(|nth| nth % 2 == 1),
    );
    for moved in &moves {
        println!(
            "from {}: {:?} rows, fenced for {:?}, {} deleted",
            moved.source, moved.rows, moved.pause, moved.deleted
        );
        assert!(moved.rows > Some(0));
    }
    let errors: Vec<_> = tallies.iter().flat_map(|tally| &tally.errors).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(stale, 0);
    for (customer, tally) in customers.iter().zip(&tallies) {
        let kept = [
            two.orders_on("home", *customer).await,
            two.orders_on("east", *customer).await,
        ];
        assert_eq!(kept, [tally.orders, 0]);
    }
    leaves_nothing_behind(&two).await;
}

async fn leaves_nothing_behind(two: &Two) {
    for cluster in ["home", "east"] {
        let left: i64 = sqlx::query_scalar(
            "select (select count(*) from pg_publication) + (select count(*) from pg_subscription)
                  + (select count(*) from pg_replication_slots where slot_name like 'shard%')
                  + (select count(*) from pg_trigger where tgname like 'shard_move%')
                  + (select count(*) from pg_class where relname like '%shard_move\\_idx')",
        )
        .fetch_one(&mut two.admin_of(cluster).await)
        .await
        .unwrap();
        assert_eq!(left, 0, "on {cluster}");
    }
}

/// A process that looks at the map once a minute, and so has the old one.
async fn slow(two: &mut Two) -> Clusters {
    let slow = |shards: &mut shards::Config| {
        shards.map_interval = Duration::from_secs(60);
        shards.map_age_max = Duration::from_secs(120);
    };
    two.another(slow).await
}

#[tokio::test]
async fn a_process_with_an_old_map_reads_where_the_client_has_written_and_writes_where_the_bucket_is()
 {
    let mut two = Two::start("512..1023").await;
    let (reading, writing) = (slow(&mut two).await, slow(&mut two).await);
    let customer = customer(7);
    let soon = || Instant::now() + PATIENCE;
    place(&two.clusters.db(soon()), customer).await.unwrap();
    // With the rows still there, that an old map leads to.
    let mover = mover(&two, &|_| {});
    let range = (bucket(7), bucket(7));
    let (moved, ()) = tokio::join!(mover.run(range, "east"), async {
        until("the map has changed", async || {
            two.clusters.holder(bucket(7)).unwrap() == "east"
        })
        .await;
        let consistency = Consistency::default();
        let db = two.clusters.db(soon()).consistent(consistency.clone());
        place(&db, customer).await.unwrap();
        let seen = consistency.to_hand_on().unwrap();

        let without_token = count(&reading.db(soon()), customer).await.unwrap();
        let consistency = Consistency::default();
        consistency.require(&seen);
        let with_token = count(&reading.db(soon()).consistent(consistency), customer)
            .await
            .unwrap();
        place(&writing.db(soon()), customer).await.unwrap();

        // Else it would have had the new map, and nothing were shown.
        assert_eq!((without_token, with_token), (1, 2));
        assert_eq!(two.orders_on("home", customer).await, 1);
        assert_eq!(two.orders_on("east", customer).await, 3);
    });
    moved.unwrap();
}

#[tokio::test]
async fn a_process_that_knows_of_one_cluster_only_cannot_write_what_is_elsewhere() {
    let two = Two::start("512..1023").await;
    let unknowing = Clusters::new(
        &two.config,
        &shards::Config::default(),
        &mut Registry::default(),
    )
    .unwrap();
    let write = async |bucket: u16| {
        let db = unknowing.db(Instant::now() + Duration::from_secs(1));
        place(&db, customer(bucket))
            .await
            .map_err(|error| error.is_transient())
    };

    let dealt = [write(7).await.is_ok(), write(600).await.is_ok()];
    moved(&two, (7, 7), "east").await.unwrap();
    let moved_away = [write(6).await.is_ok(), write(7).await.is_ok()];
    moved(&two, (7, 7), "home").await.unwrap();
    let moved_back = write(7).await;

    assert_eq!((dealt, moved_away), ([true, false], [true, false]));
    moved_back.unwrap();
    assert!(write(600).await.unwrap_err());
}

#[tokio::test]
async fn after_a_move_no_read_goes_to_a_replica_that_may_not_have_what_was_written_before() {
    let two = Two::with("512..1023", |config| {
        config.lag_max = 3 * PATIENCE;
        config.token_ttl = 6 * PATIENCE;
    })
    .await;
    let customer = customer(512);
    let soon = || Instant::now() + PATIENCE;
    let consistency = Consistency::default();
    let db = two.clusters.db(soon()).consistent(consistency.clone());
    place(&db, customer).await.unwrap();
    let seen = consistency.to_hand_on().unwrap();
    until("the map is on the standby", async || {
        two.clusters.status()[1].healthy
    })
    .await;
    two.stack.standby().apply_delay(2 * PATIENCE).await.unwrap();

    moved(&two, (512, 512), "home").await.unwrap();
    until("the map has changed", async || {
        two.clusters.holder(bucket(512)).unwrap() == "home"
    })
    .await;
    let consistency = Consistency::default();
    consistency.require(&seen);
    let db = two.clusters.db(soon()).consistent(consistency);
    let found = count(&db, customer).await.unwrap();

    assert_eq!(found, 1);
}

#[tokio::test]
async fn a_move_that_is_killed_at_any_step_is_finished_by_the_same_command_or_undone() {
    let two = Two::start("512..1023").await;
    let db = || two.clusters.db(Instant::now() + PATIENCE);
    let customer = customer(7);
    let mut orders = 0;
    for (nth, step) in [
        "indexing",
        "copying",
        "holding up",
        "switched",
        "waiting",
        "deleting",
    ]
    .into_iter()
    .enumerate()
    {
        place(&db(), customer).await.unwrap();
        orders += 1;
        let target = if nth % 2 == 0 { "east" } else { "home" };
        killed_at(&two, step, target).await;

        let other = moved(&two, (8, 8), target).await.unwrap_err();
        let moved = moved(&two, (7, 7), target).await.unwrap();

        println!("killed at {step:?}, then {moved:?}");
        assert!(matches!(other, MoveError::Unfinished { .. }), "{other}");
        assert_eq!(two.orders_on(target, customer).await, orders);
        leaves_nothing_behind(&two).await;
    }
    // An even number of moves: it is at home again.
    for step in ["indexing", "copying", "holding up"] {
        killed_at(&two, step, "east").await;

        let undone = mover(&two, &|_| {}).abort().await.unwrap();

        assert_eq!(undone, "7".parse::<Buckets>().unwrap());
        place(&db(), customer).await.unwrap();
        orders += 1;
        assert_eq!(two.orders_on("home", customer).await, orders);
        assert_eq!(two.orders_on("east", customer).await, 0);
        leaves_nothing_behind(&two).await;
    }
}

/// Begins a move and drops it at a step, connections and all.
async fn killed_at(two: &Two, step: &str, target: &str) {
    let reached = tokio::sync::Notify::new();
    let say = |said: &str| {
        if said.contains(step) {
            reached.notify_one();
        }
    };
    let mover = mover(two, &say);
    tokio::select! {
        biased;
        () = reached.notified() => {}
        ended = mover.run((bucket(7), bucket(7)), target) => panic!("ended before {step:?}: {ended:?}"),
    }
    // The server notices that its client is gone and lets go of the lock.
    let mut admin = two.admin_of("home").await;
    until("the lock is free", async || {
        let held = "select count(*) from pg_locks where locktype = 'advisory'";
        sqlx::query_scalar::<_, i64>(held)
            .fetch_one(&mut admin)
            .await
            .unwrap()
            == 0
    })
    .await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_is_begun() {
    let mut two = Two::start("512..1023").await;
    let refusal =
        async |two: &Two, range, target| moved(two, range, target).await.unwrap_err().to_string();

    let there = refusal(&two, (600, 600), "east").await;
    let unknown = refusal(&two, (7, 7), "west").await;
    let spread = refusal(&two, (511, 512), "east").await;
    let mut east = two.admin_of("east").await;
    east.execute("insert into orders (customer_id, id, total_cents) values ('00000000-0000-0000-0000-000000000007', '00000000-0000-0000-0000-000000000001', 1)")
        .await
        .unwrap();
    let leftover = refusal(&two, (7, 7), "east").await;
    two.shards.home_admin_url = None;
    let rights = refusal(&two, (8, 8), "east").await;

    assert!(there.contains("600 are there already"), "{there}");
    assert!(unknown.contains("no cluster is called west"), "{unknown}");
    assert!(
        spread.contains("not all on one cluster: 511 are on home"),
        "{spread}"
    );
    assert!(leftover.contains("has rows of these buckets"), "{leftover}");
    assert!(rights.contains("needs REPLICATION"), "{rights}");
    leaves_nothing_behind(&two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sides_that_differ_are_not_switched_and_writes_go_on() {
    let two = Two::start("512..1023").await;
    let customer = customer(7);
    let db = || two.clusters.db(Instant::now() + PATIENCE);
    place(&db(), customer).await.unwrap();
    let stray = format!(
        "insert into orders (customer_id, id, total_cents) values ('{customer}', '{customer}', 1)"
    );
    let spoil = async || {
        let mut east = two.admin_of("east").await;
        east.execute(AssertSqlSafe(stray.clone())).await.unwrap();
    };
    let say = |step: &str| {
        if step == "copying" {
            let runtime = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| runtime.block_on(spoil()));
        }
    };

    let mover = mover(&two, &say);
    let refused = mover.run((bucket(7), bucket(7)), "east").await.unwrap_err();
    place(&db(), customer).await.unwrap();
    mover.abort().await.unwrap();

    println!("{refused}");
    assert!(
        matches!(
            refused,
            MoveError::Mismatch {
                table: "orders",
                ..
            }
        ),
        "{refused}"
    );
    assert_eq!(two.orders_on("home", customer).await, 2);
    assert_eq!(two.orders_on("east", customer).await, 0);
    assert_eq!(two.clusters.holder(bucket(7)).unwrap(), "home");
    leaves_nothing_behind(&two).await;
}
