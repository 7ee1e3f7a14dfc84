//! A process that starts while nobody can be asked how the flags are.

use std::{fs, path::PathBuf};

use devstack::{Database, Fault, Stack, Target};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{SET_TOKEN, flag, is_off, says, set};
use crate::service::{PATIENCE, PATIENT, Service, database_on};
use tokio::time::Duration;

const UNKNOWN: &str = "0199f0a0-0000-7000-8000-000000000000";

/// Where a process keeps its copy; removed with this value.
struct CopyFile(PathBuf);

impl CopyFile {
    fn new() -> Self {
        let name = format!("flags-{:x}.json", fastrand::u64(..));
        Self(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_default()
    }

    async fn contains(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.text().contains(text) {
            assert!(Instant::now() < deadline, "{}", self.text());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for CopyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(self.0.with_extension("new"));
    }
}

async fn start(stack: &Stack, database: &Database, copy: Option<&CopyFile>) -> Service {
    let path = copy.map(|copy| copy.0.to_str().unwrap());
    let path = path.map(|path| ("HOLDFAST__FLAGS__COPY_PATH", path));
    let settings: Vec<_> = PATIENT.into_iter().chain([SET_TOKEN]).chain(path).collect();
    Service::start_on(stack, database, &settings).await
}

#[tokio::test]
async fn without_postgres_a_process_starts_with_what_it_last_knew_or_with_what_the_code_says() {
    let stack = Stack::start().await.unwrap();
    let database = database_on(&stack).await;
    let [copy, garbage, half] = [(); 3].map(|()| CopyFile::new());
    let service = start(&stack, &database, Some(&copy)).await;
    service.ready().await;
    set(&service, false, "1h").await;
    copy.contains("the recommender is ill").await;
    assert_eq!(service.stop().await, Some(0));
    fs::write(&garbage.0, [0xff; 4096]).unwrap();
    let text = copy.text();
    fs::write(&half.0, &text[..text.len() / 2]).unwrap();
    for target in [Target::Primary, Target::Standby] {
        stack.proxy(target).set(Fault::Down).await;
    }

    let with_copy = start(&stack, &database, Some(&copy)).await;
    let others = [
        start(&stack, &database, None).await,
        start(&stack, &database, Some(&garbage)).await,
        start(&stack, &database, Some(&half)).await,
    ];

    let known = flag(&with_copy).await;
    assert_eq!(
        [&known["value"], &known["reason"]],
        [&json!(false), &json!("CACHED")]
    );
    assert_eq!(known["override"]["changed_by"], "Ann");
    // Answered without any database.
    assert!(is_off(&with_copy, UNKNOWN).await);
    for other in &others {
        let known = flag(other).await;
        assert_eq!(
            [&known["value"], &known["reason"]],
            [&json!(true), &json!("ERROR")]
        );
    }
    for other in &others[1..] {
        other.logged("the copy of the flags cannot be used").await;
    }

    for target in [Target::Primary, Target::Standby] {
        stack.proxy(target).clear().await;
    }
    let since = Instant::now();
    for service in [&with_copy].into_iter().chain(&others) {
        let expected = [("value", json!(false)), ("reason", json!("STATIC"))];
        let took = says(service, since, &expected).await;
        println!("{took:?} after Postgres is back");
    }
    half.contains("the recommender is ill").await;
}

#[tokio::test]
async fn flags_go_on_while_postgres_is_away_and_say_that_they_are_stale() {
    let stack = Stack::start().await.unwrap();
    let database = database_on(&stack).await;
    let service = start(&stack, &database, None).await;
    service.ready().await;
    set(&service, false, "1h").await;

    stack.proxy(Target::Primary).set(Fault::BlackHole).await;
    let since = Instant::now();
    let stale = says(&service, since, &[("reason", json!("STALE"))]).await;
    let known = flag(&service).await;
    stack.proxy(Target::Primary).clear().await;
    let back = says(&service, Instant::now(), &[("reason", json!("STATIC"))]).await;

    println!("silent Postgres: stale after {stale:?}; known again {back:?} after it is back");
    assert_eq!(known["value"], false);
    assert!(stale > Duration::from_secs(10));
}
