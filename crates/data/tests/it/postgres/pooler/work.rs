//! What the data layer does behind a pooler that is as it should be.

use std::time::Duration;

use data::Error;
use data::migrate;
use data::postgres::Config;
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::super::load::{self, Load, failures};
use super::super::rig::{PATIENCE, Rig, sleeping, soon, until};
use super::{SERVER_CONNECTIONS, behind, few, make_scratch, one_query};

const TASKS: i64 = 16;
const QUERIES: i64 = 50;

/// Behind a pooler the server learns that a client is gone as without one, if the role says that it should look.
async fn let_the_server_look_for_its_clients(rig: &Rig) {
    let name = &rig.database.name;
    let set = format!(
        "alter role holdfast in database {name} set client_connection_check_interval = '100ms'"
    );
    rig.admin().await.execute(AssertSqlSafe(set)).await.unwrap();
}

/// What the pooler has open to the primary.
async fn server_connections(admin: &mut PgConnection) -> i64 {
    let count = "select count(*) from pg_stat_activity where datname = current_database() and usename = 'holdfast'";
    sqlx::query_scalar(count).fetch_one(admin).await.unwrap()
}

#[tokio::test]
async fn many_tasks_on_few_server_connections_lose_no_statement() {
    let (rig, _pooler) = behind(few(), |_| {}).await;
    make_scratch(&rig).await;
    let mut admin = rig.admin().await;

    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let cluster = rig.cluster.clone();
        tasks.spawn(async move {
            let mut outcomes = Vec::new();
            for number in 0..QUERIES {
                outcomes.push(one_query(&cluster, task, number).await);
            }
            outcomes
        });
    }
    let outcomes = tasks.join_all().await.concat();
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.is_err()).collect();
    let written: i64 = sqlx::query_scalar("select count(*) from scratch")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    let servers = server_connections(&mut admin).await;

    println!(
        "{} of {} succeeded with {} client and {servers} server connections",
        outcomes.len() - failed.len(),
        outcomes.len(),
        rig.primary().idle
    );
    assert!(failed.is_empty(), "{failed:?}");
    // Two of five ways commit a row, and none of the rolled back ones stays.
    assert_eq!(written, TASKS * QUERIES / 5 * 2);
    assert!(servers <= i64::from(SERVER_CONNECTIONS), "{servers}");
    assert!(rig.primary().idle > SERVER_CONNECTIONS.into());
}

#[tokio::test]
async fn cancelled_queries_leave_neither_permits_nor_servers_behind() {
    const CANCELLED: u64 = 100;
    let (rig, _pooler) = behind(few(), |config| config.primary_connections_max = 8).await;
    let_the_server_look_for_its_clients(&rig).await;
    let mut admin = rig.admin().await;
    rig.writer().fetch_one(|| sleeping(0.0)).await.unwrap();

    let mut queries = JoinSet::new();
    for number in 0..CANCELLED {
        let patience = Duration::from_millis(10 + number * 5);
        let deadline = if number % 2 == 0 {
            Instant::now() + patience
        } else {
            soon()
        };
        let writer = rig.cluster.db(deadline).write();
        queries.spawn(async move { timeout(patience, writer.fetch_one(|| sleeping(30.0))).await });
    }
    queries.join_all().await;
    let gone = until("no cancelled query runs on", async || {
        let running = "select count(*) from pg_stat_activity where datname = current_database()
                       and state = 'active' and query like '%pg_sleep%' and pid <> pg_backend_pid()";
        sqlx::query_scalar::<_, i64>(running).fetch_one(&mut admin).await.unwrap() == 0
    })
    .await;
    let all_at_once = (0..8)
        .map(|_| rig.writer())
        .map(|writer| async move { writer.fetch_one(|| sleeping(0.1)).await });
    let answers = all_at_once.collect::<JoinSet<_>>().join_all().await;

    println!("{CANCELLED} queries cancelled, their backends gone after {gone:?}");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!((rig.primary().in_use, rig.primary().idle), (0, 8));
}

#[tokio::test]
async fn killed_server_connections_fail_no_read_and_only_writes_under_way() {
    const ROUNDS: usize = 5;
    let (rig, _pooler) = behind(few(), |_| {}).await;
    make_scratch(&rig).await;
    let services = devstack::shared().await;
    let mut admins = Vec::new();
    for url in [
        &rig.database.admin_url,
        &services.replica_admin_url(&rig.database.name),
    ] {
        admins.push(PgConnection::connect(url).await.unwrap());
    }
    let load = |write: bool| {
        let cluster = rig.cluster.clone();
        Load::start(move || {
            let cluster = cluster.clone();
            async move { one_query(&cluster, 0, if write { 2 } else { 0 }).await }
        })
    };
    let (read_load, write_load) = (load(false), load(true));

    let mut killed = 0;
    for _ in 0..ROUNDS {
        until("reads and writes are answered", async || {
            one_query(&rig.cluster, 1, 0).await.unwrap();
            one_query(&rig.cluster, 1, 2).await.is_ok()
        })
        .await;
        for admin in &mut admins {
            let end = "select pg_terminate_backend(pid) from pg_stat_activity
                       where datname = current_database() and usename = 'holdfast'";
            killed += sqlx::query(end).fetch_all(admin).await.unwrap().len();
        }
    }
    until("writes are accepted", async || {
        one_query(&rig.cluster, 1, 2).await.is_ok()
    })
    .await;
    let (read, written) = (read_load.finish().await, write_load.finish().await);

    let failed_writes = failures(&written);
    println!(
        "{killed} server connections killed: 0 of {} reads and {} of {} writes failed",
        read.len(),
        failed_writes.len(),
        written.len()
    );
    assert!(failures(&read).is_empty(), "{:?}", failures(&read));
    let transient =
        |answer: &&load::Answer| answer.outcome.as_ref().is_err_and(Error::is_transient);
    assert!(failed_writes.iter().all(transient), "{failed_writes:?}");
    assert!(killed > 0);
}

#[tokio::test]
async fn migrations_refuse_a_pooler_and_run_on_the_direct_url() {
    let services = devstack::shared().await;
    let database = services.database("empty").await.unwrap();
    let pooler = services.pgbouncer(&database, few()).await.unwrap();
    let pooled = Config {
        primary_url: SecretString::from(pooler.primary_url()),
        ..Config::default()
    };
    let direct = Config {
        direct_url: Some(SecretString::from(database.primary_direct_url.as_str())),
        ..pooled.clone()
    };
    let patient = migrate::Config {
        connect_timeout: PATIENCE,
        ..migrate::Config::default()
    };

    let refused = migrate::run(pooled.direct_url(), &patient).await;
    let applied = migrate::run(direct.direct_url(), &patient).await;

    assert!(
        matches!(refused, Err(migrate::Error::Pooled)),
        "{refused:?}"
    );
    applied.unwrap();
}

#[tokio::test]
async fn a_plan_made_stale_by_a_migration_fails_a_few_statements_and_is_made_anew() {
    const STATEMENTS: usize = 50;
    let (rig, _pooler) = behind(few(), |_| {}).await;
    make_scratch(&rig).await;
    let statement = || sqlx::query("select number from scratch");
    let everywhere = (0..TASKS).map(|_| (rig.writer(), rig.writer()));
    let everywhere = everywhere.map(|(one, other)| async move {
        one.fetch_one(|| sleeping(0.05)).await?;
        other.execute(statement).await
    });
    let answers = everywhere.collect::<JoinSet<_>>().join_all().await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");

    let alter = "alter table scratch alter number type text";
    rig.admin().await.execute(alter).await.unwrap();
    let mut failed = Vec::new();
    for number in 0..STATEMENTS {
        if let Err(error) = rig.writer().execute(statement).await {
            assert!(error.is_transient(), "{error:?}");
            failed.push(number);
        }
    }

    println!("of {STATEMENTS} statements these failed: {failed:?}");
    // One for each server connection that holds the plan, if no other takes its turn.
    let few = 1..=usize::from(2 * SERVER_CONNECTIONS);
    assert!(few.contains(&failed.len()), "{failed:?}");
    assert!(rig.primary().healthy);
}
