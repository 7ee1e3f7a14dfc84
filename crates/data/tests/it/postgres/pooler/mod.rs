//! Behind a real PgBouncer: clients share few server connections, and nothing of it shows, unless it cannot work.

mod verdicts;
mod work;

use std::time::Duration;

use data::Error;
use data::postgres::{Clusters, Config};
use devstack::{PgBouncer, Pooling};
use secrecy::SecretString;
use sqlx::Executor as _;

use super::rig::{Rig, in_recovery, migrated, soon};

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

/// One of the ways to use the database, by turns. Every third transaction is rolled back.
async fn one_query(cluster: &Clusters, task: i64, number: i64) -> Result<(), Error> {
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
