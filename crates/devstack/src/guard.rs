//! Owns the stack's folder and everything that runs in it. A watchdog process holds the far end of a pipe: when the
//! owner ends, however it ends (return, panic, Ctrl-C, kill -9), the pipe closes and the watchdog kills what was
//! started and removes the folder. A parent-death signal would not do: the kernel clears it when the user changes.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, File},
    io,
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::statvfs::statvfs,
    unistd::{User, getegid, geteuid},
};

use crate::process::Process;

/// Renaming the folder of process ids closes the gate: a program launched after it cannot sign in, and so ends.
/// Postgres gets some seconds to end by itself, for it reaps its backends, which an image without an init would keep,
/// and returns its shared memory, which outlives processes; for one that was killed the seventh line of its file
/// names the segment. Its backends have groups of their own, so they are looked up, under a parent that is stopped
/// and cannot fork more.
const WATCHDOG: &str = r#"
trap '' HUP INT QUIT TERM
while read -r _; do :; done
children() {
    cat "/proc/$1/task/$1/children" 2>/dev/null ||
        ps -axo pid=,ppid= | while read -r pid parent; do [ "$parent" = "$1" ] && echo "$pid"; done
}
running() {
    for file in "$0"/*/postmaster.pid; do
        { read -r pid <"$file"; } 2>/dev/null && [ -e "$0/ending/$pid" ] && echo "$pid"
    done
}
cd / && mv "$0/pids" "$0/ending" || exit
for pid in $(running); do
    kill -QUIT "$pid"
    kill -CONT "$pid" $(children "$pid")
done
tries=0
while [ -n "$(running)" ] && [ $tries -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.03
done
for file in "$0"/ending/*; do
    [ -e "$file" ] || continue
    pid=${file##*/}
    kill -STOP "$pid" 2>/dev/null
    kill -KILL $(children "$pid") "$pid" 2>/dev/null
    kill -s KILL -- "-$pid" 2>/dev/null
done
for file in "$0"/*/postmaster.pid; do
    [ -e "$file" ] && ipcrm -m "$(sed -n '7s/.* //p' "$file")"
done
if [ -e "$0/groups" ]; then
    while read -r group; do
        tries=0
        until rmdir "$group" 2>/dev/null || [ ! -e "$group" ] || [ $tries -ge 50 ]; do
            tries=$((tries + 1))
            sleep 0.1
        done
    done <"$0/groups"
fi
tries=0
until rm -rf "$0" 2>/dev/null || [ $tries -ge 50 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
"#;

/// A program signs in with the watchdog before it becomes itself, so that none can slip through.
const LAUNCH: &str = r#"echo >"$1/$$" && shift && exec "$@""#;

/// Room for seeded catalogues on two servers and their WAL. Containers often have next to nothing there.
const MEMORY_FOLDER_FREE_BYTES_MIN: f64 = 4e9;

/// The stack's folder, and the life of all processes in it. Dropping it ends them and removes the folder.
pub(crate) struct Guard {
    folder: PathBuf,
    servant: Servant,
    watchdog: Mutex<Child>,
}

/// Whom the servers run as. Postgres refuses to run as root.
#[derive(Clone, Copy)]
pub(crate) struct Servant {
    pub(crate) uid: u32,
    gid: u32,
    /// Whether it is somebody else than the owner.
    other: bool,
}

impl Servant {
    fn find() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self {
                uid: geteuid().as_raw(),
                gid: getegid().as_raw(),
                other: false,
            });
        }
        let user = User::from_name("postgres")?.or(User::from_name("nobody")?);
        let user = user.context(
            "Postgres refuses to run as root, and there is no user `postgres` or `nobody`",
        )?;
        Ok(Self {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            other: true,
        })
    }
}

impl Guard {
    pub(crate) fn new() -> Result<Self> {
        let servant = Servant::find()?;
        let folder = base_folder().join(format!("holdfast-{:08x}", fastrand::u32(..)));
        for path in [folder.clone(), folder.join("pids")] {
            DirBuilder::new()
                .mode(0o700)
                .create(&path)
                .with_context(|| format!("create {}", path.display()))?;
            chown(&path, Some(servant.uid), Some(servant.gid))?;
        }
        let watchdog = Command::new("/bin/sh")
            .args([OsStr::new("-c"), OsStr::new(WATCHDOG), folder.as_os_str()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the watchdog")?;
        Ok(Self {
            folder,
            servant,
            watchdog: Mutex::new(watchdog),
        })
    }

    /// Where the stack lives. It belongs to the servant; nobody else may enter.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file in which control groups are listed, for the watchdog to remove.
    pub(crate) fn groups(&self) -> PathBuf {
        self.folder.join("groups")
    }

    pub(crate) fn servant(&self) -> Servant {
        self.servant
    }

    /// The servant's name, where the servers must not run as the stack's owner.
    pub(crate) fn servant_name(&self) -> Result<Option<String>> {
        let user = match self.servant.other {
            true => User::from_uid(self.servant.uid.into())?,
            false => None,
        };
        Ok(user.map(|user| user.name))
    }

    /// Written by the owner, read by the servant, closed to everybody else.
    pub(crate) fn write(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(chown(path, Some(self.servant.uid), None)?)
    }

    /// Starts a server in a process group of its own; what it prints is appended to `<log>.log`.
    pub(crate) fn spawn(&self, log: &str, program: &Path, args: &[OsString]) -> Result<Process> {
        self.start(log, self.command(program, args), program)
    }

    /// The same as the stack's owner, for a program that becomes the servant by itself: the servant could not enter a
    /// folder of the owner's to start it.
    pub(crate) fn spawn_as_owner(
        &self,
        log: &str,
        program: &Path,
        args: &[OsString],
    ) -> Result<Process> {
        self.start(log, self.command_as_owner(program, args), program)
    }

    fn start(&self, log: &str, mut command: Command, program: &Path) -> Result<Process> {
        let path = self.folder.join(log).with_extension("log");
        let output = File::options().create(true).append(true).open(&path)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Process::new(child, self.folder.join("pids"), path))
    }

    /// Runs a program to its end, with `input` as its standard input; an error holds what it printed.
    pub(crate) async fn run(
        &self,
        program: &Path,
        args: &[OsString],
        input: Option<&Path>,
    ) -> Result<()> {
        let stdin = match input {
            Some(path) => File::open(path)?.into(),
            None => Stdio::null(),
        };
        let mut command = self.command(program, args);
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = tokio::process::Command::from(command).spawn();
        let child = child.with_context(|| format!("start {}", program.display()))?;
        let pid = child
            .id()
            .map(|pid| self.folder.join("pids").join(pid.to_string()));
        let output = child.wait_with_output().await?;
        if let Some(path) = pid {
            let _ = fs::remove_file(path);
        }
        let printed = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{} failed: {}",
            program.display(),
            printed.trim()
        );
        Ok(())
    }

    /// Ends all processes and removes the folder; takes a tenth of a second, and at most some ten.
    pub(crate) fn end(&self) {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        drop(watchdog.stdin.take());
        let _: io::Result<_> = watchdog.wait();
    }

    /// A command run as the servant, who signs in with the watchdog. Only PATH is passed on: a `PGPORT` or `LANG` of
    /// the developer's shell must not reach the servers.
    fn command(&self, program: &Path, args: &[OsString]) -> Command {
        let mut command = self.command_as_owner(program, args);
        if self.servant.other {
            command.uid(self.servant.uid).gid(self.servant.gid);
        }
        command
    }

    fn command_as_owner(&self, program: &Path, args: &[OsString]) -> Command {
        let mut command = self.launcher();
        command
            .arg(program)
            .args(args)
            .current_dir(&self.folder)
            .env_clear()
            .env("LC_ALL", "C");
        if let Some(path) = env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.process_group(0);
        command
    }

    /// A command that dies with the stack; the program and its arguments are still to be added.
    pub(crate) fn launcher(&self) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args([
            OsStr::new("-c"),
            OsStr::new(LAUNCH),
            OsStr::new("devstack"),
            self.folder.join("pids").as_os_str(),
        ]);
        command
    }
}

/// A cluster is more than a thousand small files, made and removed for every stack: in memory that takes a tenth of
/// the time. A TMPDIR somebody has set is respected.
fn base_folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    // The integers of this call differ from system to system; a float holds them all well enough.
    let is_roomy = statvfs(memory).is_ok_and(|stat| {
        stat.blocks_available() as f64 * stat.fragment_size() as f64 >= MEMORY_FOLDER_FREE_BYTES_MIN
    });
    match env::var_os("TMPDIR") {
        None if is_roomy => memory.to_owned(),
        _ => env::temp_dir(),
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}
