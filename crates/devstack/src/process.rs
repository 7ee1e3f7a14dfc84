//! One running server: the signals a test sends it, and the table of processes they need.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::Instant;

use crate::cgroup::CpuLimit;

/// How long killed processes may take to be gone.
const DEATH_TIMEOUT: Duration = Duration::from_secs(5);
const LOG_TAIL_LINES: usize = 8;

/// A server and its children. Dropping it only reaps what is dead: the guard ends what still runs.
pub(crate) struct Process {
    child: Child,
    /// The watchdog's folder of process ids.
    pids: PathBuf,
    log: PathBuf,
}

impl Process {
    pub(crate) fn new(child: Child, pids: PathBuf, log: PathBuf) -> Self {
        Self { child, pids, log }
    }

    /// An error with the end of the log, if the server has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        self.sign_out();
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        bail!(
            "the server ended ({status}); the end of {}:\n{}",
            self.log.display(),
            tail.join("\n")
        )
    }

    /// Kill -9 of the server and all its children, and waits until they are gone: Postgres does not start again
    /// while an old backend holds its shared memory.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        let family = self.stop()?;
        for pid in &family {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        self.sign_out();
        self.child.wait()?;
        let deadline = Instant::now() + DEATH_TIMEOUT;
        while table()?
            .iter()
            .any(|row| !row.is_zombie && family.contains(&row.pid))
        {
            anyhow::ensure!(
                Instant::now() < deadline,
                "killed processes did not end within {DEATH_TIMEOUT:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Freezes the server and all its children, as a stalled machine would.
    pub(crate) fn pause(&self) -> Result<()> {
        self.stop().map(drop)
    }

    /// Asks the server to read its settings again.
    pub(crate) fn hang_up(&self) -> Result<()> {
        Ok(kill(self.pid(), Signal::SIGHUP)?)
    }

    pub(crate) fn resume(&self) -> Result<()> {
        for pid in self.children()? {
            let _ = kill(pid, Signal::SIGCONT);
        }
        Ok(kill(self.pid(), Signal::SIGCONT)?)
    }

    /// The server comes first, and so the children it has from then on are taken in with it.
    pub(crate) fn join(&self, group: &CpuLimit) -> Result<()> {
        group.admit(self.pid())?;
        for pid in self.children()? {
            // It may have ended meanwhile.
            let _ = group.admit(pid);
        }
        Ok(())
    }

    /// The server is stopped first, for then it has all the children it will have. A child may have ended meanwhile.
    fn stop(&self) -> Result<Vec<Pid>> {
        kill(self.pid(), Signal::SIGSTOP)?;
        let mut family = self.children()?;
        for pid in &family {
            let _ = kill(*pid, Signal::SIGSTOP);
        }
        family.push(self.pid());
        Ok(family)
    }

    fn children(&self) -> Result<Vec<Pid>> {
        let parent = self.pid();
        Ok(table()?
            .into_iter()
            .filter(|row| row.parent == parent)
            .map(|row| row.pid)
            .collect())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Before the id is free for others, or the watchdog would kill a stranger.
    fn sign_out(&self) {
        let _ = fs::remove_file(self.pids.join(self.child.id().to_string()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.try_wait();
    }
}

struct Row {
    pid: Pid,
    parent: Pid,
    is_zombie: bool,
}

/// All processes of the machine. `/proc` where there is one, because small images have no `ps`.
fn table() -> Result<Vec<Row>> {
    if Path::new("/proc/self/stat").exists() {
        let stats = fs::read_dir("/proc")?
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
        return Ok(stats.filter_map(|stat| parse_stat(&stat)).collect());
    }
    let output = Command::new("ps")
        .args(["-axo", "pid=,ppid=,state="])
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    Ok(printed
        .lines()
        .filter_map(|line| parse_row(line.split_whitespace()))
        .collect())
}

/// `pid (name) state parent …`, where the name may hold spaces and brackets.
fn parse_stat(stat: &str) -> Option<Row> {
    let (pid, rest) = stat.split_once(' ')?;
    let mut rest = rest.rsplit_once(") ")?.1.split_whitespace();
    let state = rest.next()?;
    parse_row([pid, rest.next()?, state].into_iter())
}

fn parse_row<'a>(mut fields: impl Iterator<Item = &'a str>) -> Option<Row> {
    let mut id = || fields.next()?.parse().ok().map(Pid::from_raw);
    Some(Row {
        pid: id()?,
        parent: id()?,
        is_zombie: fields.next()?.starts_with('Z'),
    })
}
