//! Behind a real PgBouncer in transaction mode, where no word of new jobs can come.

use std::time::Duration;

use data::postgres::Clusters;
use devstack::Pooling;
use secrecy::SecretString;
use tokio::time::sleep;
use worker::{Outcome, Registry, Running};

use crate::rig::{Mail, Rig, Seen, clusters, many, migrated};

#[tokio::test]
async fn behind_a_pooler_jobs_are_found_by_looking_and_kept_by_signs_of_life() {
    let services = devstack::shared().await;
    let mut rig = Rig::over(migrated(services).await, |_| {});
    let pooler = services
        .pgbouncer(&rig.database, Pooling::default())
        .await
        .unwrap();
    let pooled: Clusters = clusters(&rig.database, |config| {
        config.primary_url = SecretString::from(pooler.primary_url());
        config.pooled = true;
    });
    let seen = Seen::default();
    let (mut registry, pushed) = (Registry::default(), seen.clone());
    registry.add(move |running: Running<Mail>| {
        let pushed = pushed.clone();
        async move {
            sleep(Duration::from_millis(1500)).await;
            pushed.push((running.job.0, running.attempt()));
            Ok(Outcome::Done)
        }
    });

    rig.work_on(pooled, registry, |config| {
        config.lease = Duration::from_secs(1)
    });
    rig.enqueue(many(0..3, Mail)).await;
    rig.until("jobs", 0).await;

    let mut ran = seen.all();
    ran.sort_unstable();
    assert_eq!(ran, [(0, 1), (1, 1), (2, 1)]);
    let listening = rig
        .count("pg_stat_activity where query ilike 'listen%' and datname = current_database()")
        .await;
    assert_eq!(listening, 0);
}
