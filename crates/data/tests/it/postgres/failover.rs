//! The standby is promoted and the primary's endpoint moves there: no restart, and nothing that clients hold does harm.

use data::Error;
use data::postgres::{Consistency, Positions};
use devstack::Stack;
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::time::Duration;

use super::load::{Load, failures, slowest};
use super::rig::{Rig, soon, until};

async fn rig(stack: &Stack) -> Rig {
    let mut rig = Rig::on(stack, |config| {
        // A frozen or dead server is given up as in production; only opening connections may take its time.
        config.statement_timeout = Duration::from_secs(2);
        config.check_timeout = Duration::from_secs(2);
        config.connect_timeout = Duration::from_secs(2);
        config.acquire_timeout = Duration::from_secs(2);
    })
    .await;
    let create = "create table entries (id int8 generated always as identity, value int8); alter table entries owner to holdfast";
    rig.admin().await.execute(create).await.unwrap();
    rig.watch();
    until("both nodes were seen", async || {
        rig.primary().timeline == 1 && rig.replica().timeline == 1
    })
    .await;
    rig
}

async fn write(rig: &Rig, value: i64) -> Result<Positions, Error> {
    let consistency = Consistency::default();
    let db = rig.cluster.db(soon()).consistent(consistency.clone());
    let insert = || sqlx::query("insert into entries (value) values ($1)").bind(value);
    db.write().execute(insert).await?;
    Ok(consistency.to_hand_on().expect("a write has a position"))
}

async fn sees(rig: &Rig, value: i64, seen: &Positions) -> bool {
    let consistency = Consistency::default();
    consistency.require(seen);
    let db = rig.cluster.db(soon()).consistent(consistency);
    let query =
        || sqlx::query_scalar("select exists (select from entries where value = $1)").bind(value);
    db.read().fetch_one(query).await.unwrap()
}

/// Waits until writes are accepted; until then they may only fail as transient.
async fn until_written(rig: &Rig, value: i64) -> (Duration, Positions) {
    let mut seen = None;
    let took = until("writes are accepted", async || {
        match write(rig, value).await {
            Ok(positions) => {
                seen = Some(positions);
                true
            }
            Err(error) => {
                assert!(error.is_transient(), "{error:?}");
                false
            }
        }
    })
    .await;
    (took, seen.unwrap())
}

#[tokio::test]
async fn after_a_failover_writes_resume_and_old_tokens_do_no_harm() {
    let stack = Stack::start().await.unwrap();
    let rig = rig(&stack).await;
    let before = write(&rig, 1).await.unwrap();
    until("the standby has it", async || {
        sees(&rig, 1, &Positions::default()).await
    })
    .await;
    let cluster = rig.cluster.clone();
    let reads = Load::start(move || {
        let reader = cluster.db(soon()).read();
        async move {
            let query = || sqlx::query_scalar::<_, i64>("select count(*) from entries");
            reader.fetch_one(query).await.map(|_| ())
        }
    });

    stack.primary().kill().await.unwrap();
    stack.standby().promote().await.unwrap();
    stack.move_primary_endpoint().await;
    let (took, after) = until_written(&rig, 2).await;
    until("the new timeline is known", async || {
        rig.primary().timeline == 2
    })
    .await;

    println!("writes resumed {took:?} after the endpoint had moved");
    let reads = reads.finish().await;
    slowest("reads during the failover", &reads);
    assert!(failures(&reads).is_empty(), "{:?}", failures(&reads));
    assert!(sees(&rig, 1, &before).await);
    assert!(sees(&rig, 2, &after).await);
}

/// As when the old primary acknowledged what no standby had received: the position exists on no server any more.
#[tokio::test]
async fn a_token_of_a_lost_commit_costs_no_waiting() {
    let stack = Stack::start().await.unwrap();
    let rig = rig(&stack).await;
    let mut lost = Positions::default();
    for position in write(&rig, 1).await.unwrap().iter() {
        lost.add(data::postgres::Position {
            lsn: position.lsn + (1 << 40),
            ..*position
        });
    }
    stack.primary().kill().await.unwrap();
    stack.standby().promote().await.unwrap();
    stack.move_primary_endpoint().await;
    until_written(&rig, 2).await;
    until("the new timeline is known", async || {
        rig.primary().timeline == 2 && rig.replica().timeline == 2
    })
    .await;

    let before = rig.metric(r#"consistent_reads_total{node="postgres-replica"}"#);
    until("reads with the old token are on the replica", async || {
        assert!(sees(&rig, 2, &lost).await);
        rig.metric(r#"consistent_reads_total{node="postgres-replica"}"#) > before
    })
    .await;
}

/// The endpoint moves too early: what is behind it refuses writes (SQLSTATE 25006) until it is promoted.
#[tokio::test]
async fn an_endpoint_that_leads_to_a_standby_is_transient_and_ends_with_its_promotion() {
    let stack = Stack::start().await.unwrap();
    let rig = rig(&stack).await;
    write(&rig, 1).await.unwrap();

    stack.move_primary_endpoint().await;
    let mut admin = PgConnection::connect(&rig.database.admin_url)
        .await
        .unwrap();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and application_name like 'holdfast%'";
    admin.execute(end).await.unwrap();
    until("a write was refused", async || match write(&rig, 2).await {
        Ok(_) => false,
        Err(error) => {
            assert!(error.is_transient(), "{error:?}");
            true
        }
    })
    .await;
    stack.standby().promote().await.unwrap();

    let (took, _) = until_written(&rig, 3).await;
    println!("writes resumed {took:?} after the promotion");
}
