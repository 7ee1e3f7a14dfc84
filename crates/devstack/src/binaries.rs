//! Finds the server programs: a setting first, then PATH, then the folders where distributions and Homebrew keep
//! them. What is missing is one error that names `make setup`.

use std::{
    env,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

const POSTGRES_FOLDER_SETTING: &str = "HOLDFAST_DEVSTACK_PG_BIN";
const REDIS_PROGRAM_SETTING: &str = "HOLDFAST_DEVSTACK_REDIS_SERVER";
const PGBOUNCER_PROGRAM_SETTING: &str = "HOLDFAST_DEVSTACK_PGBOUNCER";
const POSTGRES_VERSIONS: RangeInclusive<u32> = 15..=18;
const POSTGRES_PROGRAMS: [&str; 3] = ["postgres", "initdb", "pg_basebackup"];
/// The first that keeps named prepared statements in transaction mode.
const PGBOUNCER_VERSION_MIN: (u32, u32) = (1, 21);
const REDIS_PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// The programs a stack is made of.
pub(crate) struct Binaries {
    pub(crate) postgres: PostgresBinaries,
    pub(crate) redis_server: PathBuf,
}

/// One Postgres installation.
#[derive(Clone)]
pub(crate) struct PostgresBinaries {
    folder: PathBuf,
    /// As printed by the server, for example `15.18`.
    pub(crate) version: String,
}

impl PostgresBinaries {
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn in_folder(folder: &Path) -> Option<(u32, Self)> {
        if !POSTGRES_PROGRAMS
            .iter()
            .all(|program| folder.join(program).is_file())
        {
            return None;
        }
        let output = Command::new(folder.join("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let printed = String::from_utf8(output.stdout).ok()?;
        let version = printed.split_whitespace().nth(2)?;
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        let major = digits.parse().ok()?;
        let binaries = Self {
            folder: folder.to_owned(),
            version: version.to_owned(),
        };
        POSTGRES_VERSIONS
            .contains(&major)
            .then_some((major, binaries))
    }
}

pub(crate) fn find() -> Result<Binaries> {
    Ok(Binaries {
        postgres: find_postgres()?,
        redis_server: find_redis()?,
    })
}

fn find_postgres() -> Result<PostgresBinaries> {
    if let Some(folder) = env::var_os(POSTGRES_FOLDER_SETTING) {
        let (_, found) = PostgresBinaries::in_folder(Path::new(&folder)).with_context(|| {
            format!(
                "{POSTGRES_FOLDER_SETTING}={} holds no Postgres 15 to 18",
                folder.display()
            )
        })?;
        return Ok(found);
    }
    let on_path = path_folders()
        .iter()
        .find_map(|folder| PostgresBinaries::in_folder(folder));
    let installed = || {
        let folders = postgres_folders();
        folders
            .iter()
            .filter_map(|folder| PostgresBinaries::in_folder(folder))
            .max_by_key(|(major, _)| *major)
    };
    match on_path.or_else(installed) {
        Some((_, found)) => Ok(found),
        None => bail!(
            "no Postgres 15 to 18 server found: run `make setup`, or set {POSTGRES_FOLDER_SETTING}"
        ),
    }
}

fn find_redis() -> Result<PathBuf> {
    if let Some(program) = env::var_os(REDIS_PROGRAM_SETTING).map(PathBuf::from) {
        ensure!(
            program.is_file(),
            "{REDIS_PROGRAM_SETTING}={} is no file",
            program.display()
        );
        return Ok(program);
    }
    let mut folders = path_folders();
    folders.extend(["/usr/bin", "/opt/homebrew/bin", "/usr/local/bin"].map(PathBuf::from));
    REDIS_PROGRAMS
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|program| program.is_file())
        .with_context(|| {
            format!("no redis-server or valkey-server found: run `make setup`, or set {REDIS_PROGRAM_SETTING}")
        })
}

/// Not part of a stack, and so looked for only by the tests that start one.
pub(crate) fn find_pgbouncer() -> Result<PathBuf> {
    if let Some(program) = env::var_os(PGBOUNCER_PROGRAM_SETTING).map(PathBuf::from) {
        ensure!(
            is_fit_pgbouncer(&program),
            "{PGBOUNCER_PROGRAM_SETTING}={} is no PgBouncer of 1.21 or newer",
            program.display()
        );
        return Ok(program);
    }
    let mut folders = path_folders();
    folders.extend(["/usr/sbin", "/opt/homebrew/bin", "/usr/local/bin"].map(PathBuf::from));
    // Where `make setup` builds one: beside the folder of this program's profile, wherever that is.
    let own = env::current_exe().unwrap_or_default();
    folders.extend(own.ancestors().map(|folder| folder.join("pgbouncer")));
    folders
        .iter()
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| is_fit_pgbouncer(program))
        .with_context(|| {
            format!("no PgBouncer of 1.21 or newer found: run `make setup`, or set {PGBOUNCER_PROGRAM_SETTING}")
        })
}

fn is_fit_pgbouncer(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").output();
    let printed = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let version = || {
        let mut numbers = printed.strip_prefix("PgBouncer ")?.split(['.', '\n']);
        let mut number = || numbers.next()?.trim().parse::<u32>().ok();
        Some((number()?, number()?))
    };
    version().is_some_and(|version| version >= PGBOUNCER_VERSION_MIN)
}

fn path_folders() -> Vec<PathBuf> {
    env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default()
}

/// Debian, the PostgreSQL project's RPMs and Homebrew install servers outside PATH, one folder a version.
fn postgres_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for major in POSTGRES_VERSIONS {
        folders.push(format!("/usr/lib/postgresql/{major}/bin").into());
        folders.push(format!("/usr/pgsql-{major}/bin").into());
        for homebrew in ["/opt/homebrew", "/usr/local", "/home/linuxbrew/.linuxbrew"] {
            folders.push(format!("{homebrew}/opt/postgresql@{major}/bin").into());
        }
    }
    folders
}
