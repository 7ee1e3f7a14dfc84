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
const POSTGRES_VERSIONS: RangeInclusive<u32> = 15..=18;
const POSTGRES_PROGRAMS: [&str; 3] = ["postgres", "initdb", "pg_basebackup"];
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
