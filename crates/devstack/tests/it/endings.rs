//! Nothing of a stack outlives its owner, however that ends.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use devstack::{STATE_FILE_VARIABLE, Stack};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::eventually;

/// Tells its stack's state file, and then waits to be told to stop.
const TELL_AND_WAIT: &str =
    "trap 'exit 42' TERM; echo $HOLDFAST_DEVSTACK; while :; do sleep 0.05; done";

/// Primary, standby, Redis, and who ends them. Postgres backends change their command lines.
const SERVERS_AND_WATCHDOG: usize = 4;

#[tokio::test]
async fn a_dropped_stack_leaves_nothing_even_of_killed_and_paused_servers() {
    let stack = Stack::start().await.unwrap();
    let folder = stack.state_file().parent().unwrap().to_owned();
    let pids = signed_in(&folder);
    assert_eq!(processes(&folder).len(), SERVERS_AND_WATCHDOG);
    stack.primary().kill().await.unwrap();
    stack.standby().pause().await.unwrap();

    drop(stack);

    assert!(!is_used(&folder), "{:?}", processes(&folder));
    let shared_memory = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let creators = shared_memory
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4));
    assert_eq!(
        creators
            .filter(|pid| pids.contains(&(*pid).to_owned()))
            .count(),
        0
    );
}

#[tokio::test]
async fn an_owner_killed_by_force_leaves_nothing() {
    let mut owner = exec(TELL_AND_WAIT);
    assert_eq!(processes(owner.folder()).len(), SERVERS_AND_WATCHDOG);

    owner.process.kill().unwrap();
    owner.process.wait().unwrap();

    eventually("processes and folder are gone", async || {
        (!is_used(owner.folder())).then_some(())
    })
    .await;
    // The command holds the other end of the pipe while it lives.
    let mut rest = String::new();
    owner.output.read_to_string(&mut rest).unwrap();
}

#[tokio::test]
async fn a_signal_reaches_the_command_whose_exit_code_is_passed_on() {
    let mut owner = exec(TELL_AND_WAIT);

    kill(
        Pid::from_raw(owner.process.id().cast_signed()),
        Signal::SIGTERM,
    )
    .unwrap();
    let status = owner.process.wait().unwrap();

    assert_eq!(status.code(), Some(42));
    assert!(!is_used(owner.folder()));
}

#[tokio::test]
async fn a_wrong_setting_is_one_error_that_names_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_devstack"))
        .arg("up")
        .env("HOLDFAST_DEVSTACK_PG_BIN", "/nowhere")
        .output();

    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "devstack: HOLDFAST_DEVSTACK_PG_BIN=/nowhere holds no Postgres 15 to 18\n"
    );
}

/// A running `devstack exec`; killed if the test fails.
struct Owner {
    process: Child,
    output: BufReader<ChildStdout>,
    state_file: PathBuf,
}

impl Owner {
    fn folder(&self) -> &Path {
        self.state_file.parent().unwrap()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts `devstack exec` around a shell script whose first line of output is the state file.
fn exec(script: &str) -> Owner {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devstack"));
    command
        .args(["exec", "--", "/bin/sh", "-c", script])
        .env_remove(STATE_FILE_VARIABLE);
    let mut process = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    Owner {
        process,
        output,
        state_file: line.trim_end().into(),
    }
}

/// The servers, by their process ids.
fn signed_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("pids")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn is_used(folder: &Path) -> bool {
    folder.exists() || !processes(folder).is_empty()
}

/// The command lines that name the folder: its servers, and the watchdog. The dead have no command line.
fn processes(folder: &Path) -> Vec<String> {
    let name = folder.to_str().unwrap();
    let lines: Vec<String> = match fs::read_dir("/proc") {
        Ok(entries) => entries
            .flatten()
            .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).into_owned())
            .collect(),
        Err(_) => {
            let output = Command::new("ps")
                .args(["-axww", "-o", "command="])
                .output()
                .unwrap();
            String::from_utf8(output.stdout)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect()
        }
    };
    lines
        .into_iter()
        .filter(|line| line.contains(name))
        .collect()
}
