//! Servers that are killed, frozen and brought back while requests run.

use std::time::Duration;

use data::Error;
use data::postgres::{Clusters, Config};
use devstack::{Postgres, Stack};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::load::{self, Load, failures, slowest};
use super::rig::{Rig, in_recovery, sleeping, soon, until};

/// Stacks of their own run one after the other, for the sake of a small machine.
pub(super) static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The bound where a frozen server must be given up: generous, for a busy machine.
const BOUND: Duration = Duration::from_secs(3);

/// Above every bound of ours, far below every bound of TCP's.
const NOT_STUCK: Duration = Duration::from_secs(12);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Freeze,
}

impl Fault {
    async fn strike(self, server: &Postgres) {
        match self {
            Self::Kill => server.kill().await.unwrap(),
            Self::Freeze => server.pause().await.unwrap(),
        }
    }

    async fn heal(self, server: &Postgres) {
        match self {
            Self::Kill => server.restart().await.unwrap(),
            Self::Freeze => server.resume().await.unwrap(),
        }
    }
}

async fn read(cluster: &Clusters) -> Result<bool, Error> {
    cluster.db(soon()).read().fetch_one(in_recovery).await
}

async fn write(cluster: &Clusters) -> Result<(), Error> {
    let write = || sqlx::query("insert into scratch values (1)");
    cluster.db(soon()).write().execute(write).await.map(|_| ())
}

async fn make_scratch(rig: &Rig) {
    let create = "create table scratch (id int); alter table scratch owner to holdfast";
    rig.admin().await.execute(create).await.unwrap();
}

/// Opens connections, so that what is measured is not how long that takes.
async fn warm_the_primary(rig: &Rig) {
    let at_once = (0..load::WORKERS).map(|_| rig.writer());
    let at_once = at_once.map(|writer| async move { writer.fetch_one(|| sleeping(0.2)).await });
    let answers = at_once.collect::<JoinSet<_>>().join_all().await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

fn reads(rig: &Rig) -> Load {
    let cluster = rig.cluster.clone();
    Load::start(move || {
        let cluster = cluster.clone();
        async move { read(&cluster).await.map(|_| ()) }
    })
}

fn writes(rig: &Rig) -> Load {
    let cluster = rig.cluster.clone();
    Load::start(move || {
        let cluster = cluster.clone();
        async move { write(&cluster).await }
    })
}

/// No read fails when the standby does, and none waits much longer than for the one attempt on it.
async fn lose_the_standby(fault: Fault) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let stack = Stack::start().await.unwrap();
    let adjust = |config: &mut Config| {
        config.replica_timeout = Config::default().replica_timeout;
        config.connect_timeout = Duration::from_secs(1);
        config.check_timeout = BOUND;
        config.check_interval = Duration::from_millis(200);
    };
    let mut rig = Rig::on(&stack, adjust).await;
    make_scratch(&rig).await;
    rig.watch();
    until("reads are on the standby", async || {
        read(&rig.cluster).await.unwrap()
    })
    .await;
    warm_the_primary(&rig).await;

    let load = reads(&rig);
    fault.strike(stack.standby()).await;
    let out = until("the standby is out", async || !rig.replica().healthy).await;
    fault.heal(stack.standby()).await;
    let back = until("reads are on the standby again", async || {
        read(&rig.cluster).await.unwrap()
    })
    .await;
    let answers = load.finish().await;

    println!("{fault:?}: out after {out:?}, used again {back:?} after it was healed");
    let slowest = slowest(&format!("{fault:?} of the standby, reads"), &answers);
    assert!(failures(&answers).is_empty(), "{:?}", failures(&answers));
    assert!(slowest < NOT_STUCK, "{slowest:?}");
}

#[tokio::test]
async fn a_killed_standby_fails_no_read_and_is_used_again() {
    lose_the_standby(Fault::Kill).await;
}

#[tokio::test]
async fn a_frozen_standby_fails_no_read_and_is_used_again() {
    lose_the_standby(Fault::Freeze).await;
}

/// Writes are refused soon and as transient, reads go on, and writes are accepted again.
async fn lose_the_primary(fault: Fault) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let stack = Stack::start().await.unwrap();
    let adjust = |config: &mut Config| {
        config.statement_timeout = BOUND;
        config.connect_timeout = BOUND;
        config.check_timeout = BOUND;
        config.check_interval = Duration::from_millis(200);
    };
    let mut rig = Rig::on(&stack, adjust).await;
    make_scratch(&rig).await;
    rig.watch();
    until("both nodes answer", async || {
        write(&rig.cluster).await.is_ok() && read(&rig.cluster).await.unwrap()
    })
    .await;

    fault.strike(stack.primary()).await;
    let (read_load, write_load) = (reads(&rig), writes(&rig));
    until("the primary is out", async || !rig.primary().healthy).await;
    until("a write was refused", async || {
        write(&rig.cluster).await.is_err()
    })
    .await;
    let written = write_load.finish().await;
    fault.heal(stack.primary()).await;
    let back = until("writes are accepted again", async || {
        write(&rig.cluster).await.is_ok()
    })
    .await;
    let read = read_load.finish().await;

    println!("{fault:?}: writes were accepted {back:?} after it was healed");
    let slowest_write = slowest(&format!("{fault:?} of the primary, writes"), &written);
    slowest(&format!("{fault:?} of the primary, reads"), &read);
    let transient =
        |answer: &load::Answer| matches!(answer.outcome, Err(Error::Unavailable { .. }));
    assert!(written.iter().all(transient), "{written:?}");
    assert!(slowest_write < NOT_STUCK, "{slowest_write:?}");
    assert!(failures(&read).is_empty(), "{:?}", failures(&read));
}

#[tokio::test]
async fn without_a_killed_primary_writes_are_refused_and_reads_go_on() {
    lose_the_primary(Fault::Kill).await;
}

#[tokio::test]
async fn without_a_frozen_primary_writes_are_refused_and_reads_go_on() {
    lose_the_primary(Fault::Freeze).await;
}

#[tokio::test]
async fn a_standby_that_falls_behind_is_spared_until_it_has_caught_up() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let stack = Stack::start().await.unwrap();
    let adjust = |config: &mut Config| {
        config.lag_max = Duration::from_millis(300);
        config.check_interval = Duration::from_millis(50);
    };
    let mut rig = Rig::on(&stack, adjust).await;
    make_scratch(&rig).await;
    rig.watch();
    until("reads are on the standby", async || {
        read(&rig.cluster).await.unwrap()
    })
    .await;

    stack.standby().pause_replay().await.unwrap();
    until("reads avoid the standby", async || {
        write(&rig.cluster).await.unwrap();
        !read(&rig.cluster).await.unwrap()
    })
    .await;
    let lag = rig.replica().lag.unwrap();
    stack.standby().resume_replay().await.unwrap();
    until("reads are on the standby again", async || {
        read(&rig.cluster).await.unwrap()
    })
    .await;

    assert!(lag >= Duration::from_millis(300), "{lag:?}");
    assert!(rig.primary().healthy);
}

#[tokio::test]
async fn sessions_ended_by_the_server_fail_no_read_and_only_writes_under_way() {
    const ROUNDS: usize = 5;
    let rig = Rig::shared(|_| {}).await;
    make_scratch(&rig).await;
    let services = devstack::shared().await;
    let mut admins = Vec::new();
    for url in [
        &rig.database.admin_url,
        &services.replica_admin_url(&rig.database.name),
    ] {
        admins.push(PgConnection::connect(url).await.unwrap());
    }
    let (read_load, write_load) = (reads(&rig), writes(&rig));

    for _ in 0..ROUNDS {
        until("reads and writes are answered", async || {
            read(&rig.cluster).await.unwrap() && write(&rig.cluster).await.is_ok()
        })
        .await;
        for admin in &mut admins {
            let end = "select pg_terminate_backend(pid) from pg_stat_activity
                       where datname = current_database() and application_name = 'holdfast'";
            sqlx::query(end).fetch_all(admin).await.unwrap();
        }
    }
    until("writes are accepted", async || {
        write(&rig.cluster).await.is_ok()
    })
    .await;
    let (read, written) = (read_load.finish().await, write_load.finish().await);

    let failed_writes = failures(&written);
    println!("{} of {} writes failed", failed_writes.len(), written.len());
    assert!(failures(&read).is_empty(), "{:?}", failures(&read));
    let transient =
        |answer: &&load::Answer| answer.outcome.as_ref().is_err_and(Error::is_transient);
    assert!(failed_writes.iter().all(transient), "{failed_writes:?}");
    assert!(
        failed_writes.len() <= ROUNDS * load::WORKERS,
        "{failed_writes:?}"
    );
}
