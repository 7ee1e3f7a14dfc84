//! Makes a standby's data folder from the running primary.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sqlx::Connection;
use tokio::time::{Instant, sleep};

use super::{Postgres, SUPERUSER};

const STREAMING_TIMEOUT: Duration = Duration::from_secs(30);
const STREAMING_POLL: Duration = Duration::from_millis(10);

/// Makes the standby a copy of the running primary and starts it. A physical slot of its own keeps the primary from
/// dropping WAL that it still needs when it was stopped.
pub(crate) async fn start_standby(primary: &Postgres, standby: &Postgres) -> Result<()> {
    copy_primary(primary, standby)
        .await
        .context("copy the primary")?;
    standby.start().await?;
    wait_until_streaming(standby).await
}

async fn copy_primary(primary: &Postgres, standby: &Postgres) -> Result<()> {
    let passfile = write_passfile(primary)?;
    let source = format!(
        "host=127.0.0.1 port={} user={SUPERUSER} passfile={}",
        primary.port,
        passfile.display()
    );
    let args = [
        "--dbname".into(),
        source.into(),
        "--pgdata".into(),
        standby.data.clone().into(),
        "--create-slot".into(),
        "--slot".into(),
        standby.name.clone().into(),
        "--write-recovery-conf".into(),
        "--wal-method=stream".into(),
        "--checkpoint=fast".into(),
        "--no-sync".into(),
        "--no-manifest".into(),
    ];
    primary
        .guard
        .run(&primary.binaries.program("pg_basebackup"), &args, None)
        .await
}

/// A standby accepts connections a little before it streams.
async fn wait_until_streaming(standby: &Postgres) -> Result<()> {
    let mut connection = standby.connect().await?;
    let deadline = Instant::now() + STREAMING_TIMEOUT;
    let sql = "select exists (select from pg_stat_wal_receiver where status = 'streaming')";
    while !sqlx::query_scalar::<_, bool>(sql)
        .fetch_one(&mut connection)
        .await?
    {
        ensure!(
            Instant::now() < deadline,
            "the standby does not stream after {STREAMING_TIMEOUT:?}"
        );
        sleep(STREAMING_POLL).await;
    }
    Ok(connection.close().await?)
}

/// A password on the command line could be read by every user of the machine.
fn write_passfile(primary: &Postgres) -> Result<PathBuf> {
    let path = primary.guard.folder().join("pgpass");
    fs::write(
        &path,
        format!(
            "127.0.0.1:{}:*:{SUPERUSER}:{}\n",
            primary.port, primary.superuser_password
        ),
    )?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    chown(&path, Some(primary.guard.servant().uid), None)?;
    Ok(path)
}
