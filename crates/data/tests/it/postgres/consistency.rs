//! Reads that see what was written before, wherever they go.

use data::postgres::{Consistency, Db, Positions, Tokens};
use devstack::Stack;
use sqlx::Executor as _;
use std::time::{Duration, SystemTime};

use super::rig::{PATIENCE, Rig, in_recovery, soon, until};

/// Pairs of a write and a read of what was written.
const PAIRS: i64 = 10_000;
const CLIENTS: i64 = 20;

/// A rig whose replica is known, with a table of counters.
async fn rig(stack: &Stack, token_wait: Duration) -> Rig {
    let mut rig = Rig::on(stack, |config| {
        config.token_wait = token_wait;
        config.lag_max = 3 * PATIENCE;
        config.replica_connections_max = 8;
        config.primary_connections_max = 8;
        config.fallback_reads_max = 8;
    })
    .await;
    let mut admin = rig.admin().await;
    admin
        .execute("create table counters (id int8 primary key, value int8 not null); alter table counters owner to holdfast")
        .await
        .unwrap();
    rig.watch();
    until("the replica has caught up", async || {
        rig.replica().healthy
            && rig.replica().lag == Some(Duration::ZERO)
            && rig.primary().timeline == 1
    })
    .await;
    rig
}

fn request(rig: &Rig, seen: Option<&Positions>) -> (Db, Consistency) {
    let consistency = Consistency::default();
    if let Some(seen) = seen {
        consistency.require(seen);
    }
    (
        rig.cluster.db(soon()).consistent(consistency.clone()),
        consistency,
    )
}

/// Writes in one request, and hands on what the next one has to see.
async fn write(rig: &Rig, id: i64, value: i64) -> Positions {
    let (db, consistency) = request(rig, None);
    let statement = || {
        sqlx::query(
            "insert into counters values ($1, $2) on conflict (id) do update set value = $2",
        )
        .bind(id)
        .bind(value)
    };
    db.write().execute(statement).await.unwrap();
    consistency.to_hand_on().unwrap()
}

async fn read(rig: &Rig, id: i64, seen: Option<&Positions>) -> Option<i64> {
    let (db, _) = request(rig, seen);
    let query = || sqlx::query_scalar("select value from counters where id = $1").bind(id);
    db.read().fetch_optional(query).await.unwrap()
}

/// Clients that write and read back at once. How many reads were stale.
async fn stale_reads(rig: &Rig) -> i64 {
    let client = |client: i64| async move {
        let mut stale = 0;
        for value in 0..PAIRS / CLIENTS {
            let seen = write(rig, client, value).await;
            stale += i64::from(read(rig, client, Some(&seen)).await != Some(value));
        }
        stale
    };
    futures::future::join_all((0..CLIENTS).map(client))
        .await
        .iter()
        .sum()
}

fn taken_by(rig: &Rig, node: &str) -> f64 {
    rig.metric(&format!("consistent_reads_total{{node=\"{node}\"}}"))
}

#[tokio::test]
async fn a_healthy_replica_takes_most_reads_with_a_token_and_none_is_stale() {
    let stack = Stack::start().await.unwrap();
    let rig = rig(&stack, Duration::from_millis(50)).await;

    let stale = stale_reads(&rig).await;

    let (replica, primary) = (
        taken_by(&rig, "postgres-replica"),
        taken_by(&rig, "postgres-primary"),
    );
    println!(
        "healthy: {PAIRS} pairs, {stale} stale, {replica} on the replica, {primary} on the primary"
    );
    assert_eq!(stale, 0);
    assert!(
        replica >= primary,
        "{replica} on the replica, {primary} on the primary"
    );
}

#[tokio::test]
async fn with_a_delayed_replica_no_read_with_a_token_is_stale_and_the_others_stay_there() {
    let stack = Stack::start().await.unwrap();
    let rig = rig(&stack, Duration::from_millis(5)).await;
    write(&rig, 100, 0).await;
    until("the replica has it", async || {
        read(&rig, 100, None).await.is_some()
    })
    .await;
    stack
        .standby()
        .apply_delay(Duration::from_secs(5))
        .await
        .unwrap();

    let unrelated = async {
        let mut on_replica = 0;
        for _ in 0..500 {
            let read = rig
                .cluster
                .db(soon())
                .read()
                .fetch_one(in_recovery)
                .await
                .unwrap();
            on_replica += i32::from(read);
        }
        on_replica
    };
    let (stale, on_replica) = tokio::join!(stale_reads(&rig), unrelated);
    let seen = write(&rig, 100, 1).await;
    let without_token = read(&rig, 100, None).await;
    let with_token = read(&rig, 100, Some(&seen)).await;

    println!(
        "5 s behind: {PAIRS} pairs, {stale} stale; {on_replica} of 500 unrelated reads on the replica"
    );
    assert_eq!((stale, with_token), (0, Some(1)));
    // Else the delay would not have been there, and nothing shown.
    assert_eq!(without_token, Some(0));
    assert!(on_replica >= 400, "{on_replica}");
}

#[tokio::test]
async fn a_request_sees_its_own_writes() {
    let stack = Stack::start().await.unwrap();
    let rig = rig(&stack, Duration::from_millis(5)).await;
    stack
        .standby()
        .apply_delay(Duration::from_secs(5))
        .await
        .unwrap();
    let (db, _) = request(&rig, None);

    let body = |mut tx: data::postgres::Tx| async move {
        tx.execute(sqlx::query("insert into counters values (1, 1)"))
            .await?;
        tx.commit(()).await
    };
    db.write()
        .transaction::<_, data::Error, _, _>(body)
        .await
        .unwrap();
    let query = || sqlx::query_scalar::<_, i64>("select value from counters where id = 1");
    let found = db.read().fetch_optional(query).await.unwrap();

    assert_eq!(found, Some(1));
}

#[tokio::test]
async fn what_changed_nothing_asks_nothing_of_the_next_read() {
    let rig = Rig::shared(|_| {}).await;
    let (db, consistency) = request(&rig, None);

    let nothing = || sqlx::query("delete from users where false");
    db.write().execute(nothing).await.unwrap();

    assert_eq!(consistency.to_hand_on(), None);
}

#[tokio::test]
async fn a_token_carries_positions_from_one_process_to_another() {
    let stack = Stack::start().await.unwrap();
    let rig = rig(&stack, Duration::from_millis(5)).await;
    let tokens = Tokens::new(&data::postgres::Config::default());
    let seen = write(&rig, 1, 1).await;

    let token = tokens.sign(&seen, SystemTime::now());

    assert_eq!(tokens.verify(&token, SystemTime::now()), Some(seen));
}

/// What a client saw on the primary, where another one had written it, it does not lose again on the replica.
#[tokio::test]
async fn the_reads_of_a_client_do_not_go_back_in_time() {
    let stack = Stack::start().await.unwrap();
    let rig = rig(&stack, Duration::from_millis(5)).await;
    let own = write(&rig, 1, 1).await;
    until("the replica has it", async || {
        read(&rig, 1, None).await == Some(1)
    })
    .await;
    stack
        .standby()
        .apply_delay(Duration::from_secs(60))
        .await
        .unwrap();
    write(&rig, 2, 7).await;
    let (db, consistency) = request(&rig, Some(&own));
    stack.standby().pause().await.unwrap();

    let somebody_elses = || sqlx::query_scalar::<_, i64>("select value from counters where id = 2");
    let on_primary = async || db.read().fetch_optional(somebody_elses).await.unwrap();
    until("the primary takes the read", async || {
        on_primary().await == Some(7)
    })
    .await;
    stack.standby().resume().await.unwrap();
    until("the replica takes reads", async || {
        read(&rig, 2, None).await.is_none()
    })
    .await;

    let seen = consistency.to_hand_on().unwrap();
    assert_eq!(read(&rig, 2, Some(&own)).await, None);
    assert_eq!(read(&rig, 2, Some(&seen)).await, Some(7));
}

#[tokio::test]
async fn without_a_primary_a_read_waits_until_a_replica_has_what_it_must_see() {
    let stack = Stack::start().await.unwrap();
    let rig = rig(&stack, Duration::from_millis(1)).await;
    let mut admin = rig.admin().await;
    stack.standby().pause_replay().await.unwrap();
    let seen = write(&rig, 1, 1).await;
    until("the standby has received the write", async || {
        let received =
            "select bool_and(flush_lsn >= pg_current_wal_lsn()) from pg_stat_replication";
        let received: bool = sqlx::query_scalar(received)
            .fetch_one(&mut admin)
            .await
            .unwrap();
        received
    })
    .await;
    stack.primary().kill().await.unwrap();
    until("the primary is known to be down", async || {
        !rig.primary().healthy
    })
    .await;

    let (found, resumed) =
        tokio::join!(read(&rig, 1, Some(&seen)), stack.standby().resume_replay());

    resumed.unwrap();
    assert_eq!(found, Some(1));
}
