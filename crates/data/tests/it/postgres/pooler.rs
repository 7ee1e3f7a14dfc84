//! Behind a real PgBouncer: clients share few server connections, and nothing of it shows, unless it cannot work.

use std::time::Duration;

use data::Error;
use data::migrate;
use data::postgres::{Cluster, Config};
use devstack::{PgBouncer, PoolMode, Pooling};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::load::{self, Load, failures};
use super::rig::{PATIENCE, Rig, in_recovery, migrated, sleeping, soon, until};

const TASKS: i64 = 16;
const QUERIES: i64 = 50;
/// Far fewer than tasks.
const SERVER_CONNECTIONS: u16 = 4;

/// A cluster that reaches its servers through a pooler, and the pooler.
async fn behind(pooling: Pooling, adjust: impl FnOnce(&mut Config)) -> (Rig, PgBouncer) {
    let services = devstack::shared().await;
    let database = migrated(services).await;
    let pooler = services.pgbouncer(&database, pooling).await.unwrap();
    let rig = Rig::over(database, |config| {
        config.primary_url = SecretString::from(pooler.primary_url());
        config.replica_urls = vec![SecretString::from(pooler.replica_url())];
        config.pooled = true;
        config.check_interval = Duration::from_millis(100);
        adjust(config);
    });
    (rig, pooler)
}

fn few() -> Pooling {
    Pooling {
        server_connections_max: SERVER_CONNECTIONS,
        ..Pooling::default()
    }
}

async fn make_scratch(rig: &Rig) {
    let create =
        "create table scratch (task int8, number int8); alter table scratch owner to holdfast";
    rig.admin().await.execute(create).await.unwrap();
}

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

/// One of the ways to use the database, by turns. Every third transaction is rolled back.
async fn one_query(cluster: &Cluster, task: i64, number: i64) -> Result<(), Error> {
    let db = cluster.db(soon());
    let count =
        || sqlx::query_scalar::<_, i64>("select count(*) from scratch where task = $1").bind(task);
    let insert = || {
        sqlx::query("insert into scratch values ($1, $2)")
            .bind(task)
            .bind(number)
    };
    match number % 5 {
        0 => db.read().fetch_one(in_recovery).await.map(|_| ()),
        1 => db.read().fetch_one(count).await.map(|_| ()),
        2 => db.write().execute(insert).await.map(|_| ()),
        3 => {
            db.write()
                .transaction(|mut tx| async move {
                    tx.execute(insert()).await?;
                    let seen = tx.fetch_one(count()).await?;
                    assert!(seen > 0, "a transaction does not see its own write");
                    tx.commit(()).await
                })
                .await
        }
        _ => {
            let refused = db
                .write()
                .transaction(|mut tx| async move {
                    tx.execute(insert()).await?;
                    tx.execute(sqlx::query("select 1 / ($1 - $1)").bind(number))
                        .await?;
                    tx.commit(()).await
                })
                .await;
            match refused {
                Err(Error::Statement(_)) => Ok(()),
                other => other,
            }
        }
    }
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

/// Waits until the check says of both nodes why they cannot be used, and that no request is let through.
async fn expect_refused(rig: &Rig, reason: &str) {
    for node in [Rig::primary, Rig::replica] {
        until(reason, async || {
            let error = node(rig).error.unwrap_or_default();
            error.contains(reason) && !node(rig).healthy
        })
        .await;
        println!(
            "{}: {}",
            node(rig).name,
            node(rig).error.unwrap_or_default()
        );
    }
    let write = rig.writer().fetch_one(in_recovery).await;
    let read = rig.reader().fetch_one(in_recovery).await;
    assert!(matches!(write, Err(Error::Unavailable { .. })), "{write:?}");
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
}

async fn expect_used(rig: &Rig) {
    until("both nodes are used", async || {
        let is_well = |node: data::postgres::NodeStatus| {
            node.healthy && node.error.is_none() && node.checked_ago.is_some()
        };
        is_well(rig.primary()) && is_well(rig.replica())
    })
    .await;
    for number in 0..5 {
        one_query(&rig.cluster, 0, number).await.unwrap();
    }
}

#[tokio::test]
async fn a_pooler_that_loses_prepared_statements_is_refused_until_it_is_set_right() {
    let forgetful = Pooling {
        prepared_statements_max: 0,
        ..few()
    };
    let (mut rig, pooler) = behind(forgetful, |_| {}).await;
    make_scratch(&rig).await;
    rig.watch();

    expect_refused(&rig, "max_prepared_statements above 0").await;
    pooler.reload(few()).unwrap();

    expect_used(&rig).await;
}

#[tokio::test]
async fn a_pooler_with_one_server_connection_is_found_out_too() {
    let one = Pooling {
        prepared_statements_max: 0,
        server_connections_max: 1,
        ..Pooling::default()
    };
    let (mut rig, _pooler) = behind(one, |_| {}).await;
    rig.watch();

    expect_refused(&rig, "max_prepared_statements above 0").await;
}

#[tokio::test]
async fn a_pooler_in_statement_mode_is_refused_until_it_is_set_right() {
    let statement = Pooling {
        mode: PoolMode::Statement,
        ..few()
    };
    let (mut rig, pooler) = behind(statement, |_| {}).await;
    make_scratch(&rig).await;
    rig.watch();

    expect_refused(&rig, "pool_mode = transaction").await;
    pooler.reload(few()).unwrap();

    expect_used(&rig).await;
}

#[tokio::test]
async fn a_pooler_whose_server_refuses_it_is_not_taken_for_one_that_cannot_work() {
    let (mut rig, _pooler) = behind(few(), |_| {}).await;
    make_scratch(&rig).await;
    rig.watch();
    expect_used(&rig).await;
    let mut admin = rig.admin().await;
    let name = rig.database.name.clone();
    let mut set_limit = async |limit: i32| {
        // A superuser is let in all the same.
        let set = format!("alter database {name} connection limit {limit}");
        admin.execute(AssertSqlSafe(set)).await.unwrap();
        let end = "select pg_terminate_backend(pid) from pg_stat_activity
                   where datname = current_database() and usename = 'holdfast'";
        admin.execute(end).await.unwrap();
    };

    set_limit(0).await;
    until("the check fails", async || rig.primary().error.is_some()).await;
    let told = rig.primary().error.unwrap_or_default();
    set_limit(-1).await;

    println!("{told}");
    assert!(
        told.starts_with("SQLSTATE") || told.starts_with("no answer"),
        "{told}"
    );
    expect_used(&rig).await;
}

#[tokio::test]
async fn a_pooler_that_nobody_spoke_of_is_named() {
    let (mut rig, _pooler) = behind(few(), |config| config.pooled = false).await;
    rig.watch();

    expect_refused(&rig, "postgres.pooled = true").await;
}

#[tokio::test]
async fn a_pooler_that_drops_the_limits_of_sessions_is_named() {
    let dropping = Pooling {
        ignored_parameters: "extra_float_digits, options",
        ..few()
    };
    let (mut rig, _pooler) = behind(dropping, |config| config.pooled = false).await;
    rig.watch();

    expect_refused(&rig, "drops startup parameters").await;
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

#[tokio::test]
async fn session_mode_and_no_pooler_at_all_are_accepted_although_names_pass_through() {
    let session = Pooling {
        mode: PoolMode::Session,
        prepared_statements_max: 0,
        // One each for the requests and two for the check, which never come back.
        server_connections_max: 32,
        ..Pooling::default()
    };
    let (mut rig, _pooler) = behind(session, |_| {}).await;
    make_scratch(&rig).await;
    rig.watch();
    let mut direct = Rig::shared(|config| config.pooled = true).await;
    make_scratch(&direct).await;
    direct.watch();

    expect_used(&rig).await;
    expect_used(&direct).await;
}
