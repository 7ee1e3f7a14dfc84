//! What asking for a flag costs a request. A binary of its own, because it counts every allocation.
#![expect(clippy::unwrap_used, reason = "a test has nothing better to do")]

use std::{hint::black_box, path::PathBuf};

use api::flags::{Config, Flag, Flags};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

const EVALUATIONS: u32 = 1_000_000;

/// With one flag set by hand: so the clock is looked at, too.
fn flags() -> Flags {
    let name = format!("flags-{:x}.json", fastrand::u64(..));
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let copy = r#"{ "by_hand": { "recommendations": { "value": false, "reason": "r", "changed_by": "c",
        "changed_at": "2026-01-01T00:00:00Z", "expires_at": "9999-01-01T00:00:00Z" } }, "remote": null }"#;
    std::fs::write(&path, copy).unwrap();
    let config = Config {
        copy_path: Some(path.clone()),
        ..Config::default()
    };
    let flags = Flags::new(&config, None, &mut Registry::default());
    std::fs::remove_file(path).unwrap();
    flags
}

#[test]
fn asking_for_a_flag_allocates_nothing() {
    let flags = flags();

    for (flag, what) in [
        (Flag::OrderProducts, "as the code says"),
        (Flag::Recommendations, "set by hand"),
    ] {
        let ask = || black_box(flags.is_on(black_box(flag)));
        assert_eq!(ask(), flag == Flag::OrderProducts);
        let started = Instant::now();
        let counted = allocation_counter::measure(|| (0..EVALUATIONS).for_each(|_| _ = ask()));
        let each = started.elapsed() / EVALUATIONS;

        println!(
            "{what}: {} allocations in {EVALUATIONS} times of {each:?} each",
            counted.count_total
        );
        assert_eq!(counted.count_total, 0);
    }
}
