//! A Redis that loses everything while many read a few hot keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use data::cache::Config;
use deadpool_redis::redis::cmd;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Process;
use super::fleet::{LOCK, fleet};
use crate::redis_server::{PATIENCE, Server, until};

/// Keys that everybody reads.
const HOT: usize = 20;
/// Readers at once, per process.
const READERS: usize = 8;
/// Reads in each phase.
const READS: usize = 6_000;

/// Readers of random hot keys who note how long each read took.
struct Load {
    readers: JoinSet<Vec<(Instant, Duration)>>,
    reads: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
}

impl Load {
    fn start(processes: &[Process; 3]) -> Self {
        let mut load = Self {
            readers: JoinSet::new(),
            reads: Arc::default(),
            end: Arc::default(),
        };
        for reader in 0..3 * READERS {
            let things = processes[reader % 3].things.clone();
            let (reads, end) = (Arc::clone(&load.reads), Arc::clone(&load.end));
            load.readers.spawn(async move {
                let mut took = Vec::new();
                while !end.load(Ordering::Relaxed) {
                    let key = format!("hot{}", fastrand::usize(..HOT));
                    let begun = Instant::now();
                    let found = things.get(&key, begun + PATIENCE).await;
                    assert_eq!(*found.unwrap().unwrap(), key);
                    took.push((begun, begun.elapsed()));
                    reads.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
                took
            });
        }
        load
    }

    async fn more(&self, reads: usize) -> Instant {
        let from = self.reads.load(Ordering::Relaxed);
        until("there were more reads", async || {
            self.reads.load(Ordering::Relaxed) >= from + reads
        })
        .await;
        Instant::now()
    }

    async fn end(self) -> Vec<(Instant, Duration)> {
        self.end.store(true, Ordering::Relaxed);
        self.readers.join_all().await.concat()
    }
}

fn p99(reads: &[(Instant, Duration)], from: Instant, to: Instant) -> Duration {
    let within = reads.iter().filter(|(at, _)| (from..to).contains(at));
    let mut took: Vec<_> = within.map(|(_, took)| *took).collect();
    took.sort();
    took[took.len() * 99 / 100]
}

/// Flushes under load; prints how long reads took, and returns the loads of each process before and after.
async fn flush(what: &str, config: &Config) -> ([u32; 3], [u32; 3]) {
    let server = Server::start().await;
    let processes: [Process; 3] = fleet(&server, config).await;
    for process in &processes {
        process.loads.always(|key| async {
            sleep(Duration::from_millis(2)).await;
            Ok(Some(key))
        });
    }
    let loads = || processes.each_ref().map(|process| process.loads.count());

    let load = Load::start(&processes);
    let warm = load.more(READS).await;
    let before = loads();
    load.more(READS).await;
    let _: () = server.ask(&cmd("FLUSHALL")).await;
    let flushed = Instant::now();
    let after = load.more(2 * READS).await;
    let reads = load.end().await;

    let again = [0, 1, 2].map(|each: usize| loads()[each] - before[each]);
    println!(
        "FLUSHALL, {what}: {} reads, 0 errors, p99 {:?} before and {:?} after, {again:?} loads of {HOT} keys",
        reads.len(),
        p99(&reads, warm, flushed),
        p99(&reads, flushed, after),
    );
    (before, again)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_under_load_costs_one_load_a_key_and_process_and_no_error() {
    // Nearly every read goes to Redis, so that the flush is felt.
    let remote = Config {
        local_ttl: Duration::from_millis(10),
        local_ttl_unsubscribed: Duration::from_millis(10),
        load_lock: LOCK,
        ..Config::default()
    };

    let (before, again) = flush("next to nothing kept in process", &remote).await;

    assert_eq!(before.iter().sum::<u32>(), HOT as u32);
    assert!(again.iter().all(|loads| *loads <= HOT as u32), "{again:?}");
    assert!(again.iter().sum::<u32>() <= 2 * HOT as u32, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_is_not_felt_while_values_are_kept_in_process() {
    let lasting = Config {
        local_ttl: Duration::from_secs(3600),
        load_lock: LOCK,
        ..Config::default()
    };

    let (_, again) = flush("values kept in process", &lasting).await;

    assert_eq!(again, [0, 0, 0]);
}
