//! Makes the standby's data folder from the running primary.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use sqlx::Connection;
use tokio::time::{Instant, sleep};

use super::{Postgres, SUPERUSER};

/// The physical slot, which keeps the primary from dropping WAL that a stopped standby still needs.
const SLOT: &str = "standby";
const STREAMING_TIMEOUT: Duration = Duration::from_secs(30);
const STREAMING_POLL: Duration = Duration::from_millis(10);

/// Copies the running primary into `data`; the copy is set up to stream from it through a slot of its own.
pub(crate) async fn copy_primary(primary: &Postgres, data: &Path) -> Result<()> {
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
        data.into(),
        "--create-slot".into(),
        "--slot".into(),
        SLOT.into(),
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
pub(crate) async fn wait_until_streaming(standby: &Postgres) -> Result<()> {
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
