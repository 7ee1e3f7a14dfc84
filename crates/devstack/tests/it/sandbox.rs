//! The upstream sandbox as a program of its own, as Compose runs it.

use std::process::Stdio;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::{DEADLINE, http::exchange};

#[tokio::test]
async fn a_sandbox_alone_answers_and_ends_when_told() {
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_devstack"))
        .args(["sandbox", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut output = BufReader::new(sandbox.stdout.take().unwrap()).lines();
    let line = timeout(DEADLINE, output.next_line()).await.unwrap();
    let line = line.unwrap().unwrap();
    let url = line.split(' ').next_back().unwrap().trim_end_matches('.');

    let (status, _) = exchange(url, "PUT /behaviour/payments", r#"{"decline_rate": 1}"#)
        .await
        .unwrap();
    let (_, behaviour) = exchange(url, "GET /behaviour", "").await.unwrap();
    assert_eq!(status, 204);
    assert!(behaviour.contains(r#""decline_rate":1.0"#), "{behaviour}");

    let pid = Pid::from_raw(sandbox.id().unwrap().cast_signed());
    kill(pid, Signal::SIGTERM).unwrap();
    let ended = timeout(DEADLINE, sandbox.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0), "{ended}");
}
