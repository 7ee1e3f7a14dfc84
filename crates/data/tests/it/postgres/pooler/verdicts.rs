//! Poolers that cannot work, and what is said of them.

use data::Error;
use data::postgres::NodeStatus;
use devstack::{PoolMode, Pooling};
use sqlx::{AssertSqlSafe, Executor as _};

use super::super::rig::{Rig, in_recovery, until};
use super::{behind, few, make_scratch, one_query};

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
        let is_well =
            |node: NodeStatus| node.healthy && node.error.is_none() && node.checked_ago.is_some();
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
