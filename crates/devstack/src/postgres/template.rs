//! A cluster prepared once and copied by every stack: initdb takes longer than all the rest of a start.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::Read,
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{APP, SUPERUSER};
use crate::{binaries::PostgresBinaries, guard::Guard};

/// A crash loses nothing as long as the machine stays up: without fsync the pages are in the kernel's cache.
/// `synchronous_commit` stays on, or a killed primary would forget writes it has acknowledged.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 256MB
# Else a killed server leaves its segments in /dev/shm.
dynamic_shared_memory_type = mmap
fsync = off
full_page_writes = off
synchronous_commit = on
wal_level = logical
max_wal_size = 512MB
max_wal_senders = 20
max_replication_slots = 20
hot_standby = on
# A reader on the standby is not cancelled because the primary vacuumed.
hot_standby_feedback = on
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 500ms
wal_retrieve_retry_interval = 100ms
log_line_prefix = '%m [%p] %q%u@%d '
log_checkpoints = off
timezone = 'UTC'
";
/// SCRAM costs a client without optimisation some 50 ms of CPU a connection. Nobody else hears the loopback interface.
const AUTHENTICATION: &str = "--auth=password";
const STATEMENT_STATISTICS: &str = "shared_preload_libraries = 'pg_stat_statements'\n";

/// Where prepared clusters are kept.
const CACHE_FOLDER: &str = "holdfast-devstack";

/// A stopped cluster with the application's role and database in it.
pub(crate) struct Template {
    folder: PathBuf,
    /// Made up when the cluster was prepared; other users of the machine cannot read it.
    pub(crate) superuser_password: String,
}

impl Template {
    /// Takes it from the cache, or prepares it and puts it there.
    pub(crate) async fn find_or_prepare(
        guard: &Guard,
        binaries: &PostgresBinaries,
    ) -> Result<Self> {
        let folder = match cache_folder().map(|cache| cache.join(name(guard, binaries))) {
            Some(cached) if cached.exists() => cached,
            Some(cached) => {
                let prepared = prepare(guard, binaries, "template").await?;
                // Without a writable cache every stack prepares its own, which is only slower.
                keep(&prepared, &cached).await.map_or(prepared, |()| cached)
            }
            None => prepare(guard, binaries, "template").await?,
        };
        let superuser_password = fs::read_to_string(password_file(&folder))?;
        Ok(Self {
            folder,
            superuser_password,
        })
    }

    /// A cluster of its own: the copies of another have one `system_identifier`, and pass for one cluster.
    pub(crate) async fn prepare_another(
        guard: &Guard,
        binaries: &PostgresBinaries,
        name: &str,
    ) -> Result<Self> {
        let folder = prepare(guard, binaries, &format!("template_{name}")).await?;
        let superuser_password = fs::read_to_string(password_file(&folder))?;
        Ok(Self {
            folder,
            superuser_password,
        })
    }

    /// Copies the cluster to `data`.
    pub(crate) async fn copy_to(&self, data: &Path) -> Result<()> {
        copy(&self.folder.join("data"), data).await
    }
}

/// Another version, another user or other settings are another template.
fn name(guard: &Guard, binaries: &PostgresBinaries) -> String {
    let mut hasher = DefaultHasher::new();
    (
        SETTINGS,
        AUTHENTICATION,
        STATEMENT_STATISTICS,
        bootstrap(true),
        binaries.program("postgres"),
    )
        .hash(&mut hasher);
    format!(
        "postgres-{}-{}-{:016x}",
        binaries.version,
        guard.servant().uid,
        hasher.finish()
    )
}

fn cache_folder() -> Option<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    Some(base?.join(CACHE_FOLDER))
}

fn password_file(folder: &Path) -> PathBuf {
    folder.join("superuser")
}

async fn prepare(guard: &Guard, binaries: &PostgresBinaries, name: &str) -> Result<PathBuf> {
    let folder = guard.folder().join(name);
    fs::create_dir(&folder)?;
    chown(&folder, Some(guard.servant().uid), None)?;
    let data = folder.join("data");
    guard.write(&password_file(&folder), &random_password()?)?;
    let pwfile = password_file(&folder);
    let args: [OsString; 11] = [
        "--no-sync".into(),
        "--no-instructions".into(),
        "--no-locale".into(),
        "--encoding=UTF8".into(),
        AUTHENTICATION.into(),
        "--username".into(),
        SUPERUSER.into(),
        "--pwfile".into(),
        pwfile.into(),
        "--pgdata".into(),
        data.clone().into(),
    ];
    guard.run(&binaries.program("initdb"), &args, None).await?;
    // Not every installation has the statistics extension.
    if bootstrap_cluster(guard, binaries, &data, true)
        .await
        .is_err()
    {
        bootstrap_cluster(guard, binaries, &data, false).await?;
    }
    Ok(folder)
}

async fn bootstrap_cluster(
    guard: &Guard,
    binaries: &PostgresBinaries,
    data: &Path,
    statistics: bool,
) -> Result<()> {
    let preload = if statistics { STATEMENT_STATISTICS } else { "" };
    guard.write(
        &data.join("postgresql.conf"),
        &format!("{SETTINGS}{preload}"),
    )?;
    let sql = guard.folder().join("bootstrap.sql");
    guard.write(&sql, &bootstrap(statistics))?;
    let args: [OsString; 4] = [
        "--single".into(),
        "-D".into(),
        data.into(),
        "template1".into(),
    ];
    guard
        .run(&binaries.program("postgres"), &args, Some(&sql))
        .await
}

/// One statement a line, as single-user mode wants it. CREATEDB is for tests that make their own databases.
fn bootstrap(statistics: bool) -> String {
    let extension = if statistics {
        "create extension pg_stat_statements;\n"
    } else {
        ""
    };
    format!(
        "{extension}create role {APP} login createdb password '{APP}';\ncreate database {APP} owner {APP};\n"
    )
}

/// Another process may be keeping the same template just now; the rename lets one of them win.
async fn keep(prepared: &Path, cached: &Path) -> Result<()> {
    let parent = cached.parent().context("the cache folder has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let unfinished = cached.with_extension(format!("{:08x}", fastrand::u32(..)));
    copy(prepared, &unfinished).await?;
    match fs::rename(&unfinished, cached) {
        Err(_) if cached.exists() => Ok(fs::remove_dir_all(&unfinished)?),
        result => Ok(result?),
    }
}

/// `cp` keeps owners and modes, and shares blocks where the file system can.
async fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = tokio::process::Command::new("cp")
        .arg("-Rp")
        .args([from, to])
        .status()
        .await?;
    anyhow::ensure!(
        status.success(),
        "cp {} {} failed",
        from.display(),
        to.display()
    );
    Ok(())
}

fn random_password() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
