//! Every wait that can be set has its place among the others: no setting of one is free to be as long as anyone likes.

use api::settings::Settings;
use data::postgres::shards::ClusterConfig;
use serde_json::Value;
use settings::Settings as _;

/// What the keys of waits end with.
const WAITS: [&str; 6] = [
    "timeout",
    "_deadline",
    "wait",
    "_idle",
    "slow_after",
    "open_min",
];

/// Waits around which there is no other, and why.
const FREE: [(&str, &str); 9] = [
    ("admin.stall_timeout", "a threshold: nothing waits for it"),
    (
        "http.body_stall_timeout",
        "one pause of many; the request's deadline is around all",
    ),
    (
        "http.write_stall_timeout",
        "an answer that is read slowly may outlast a drain, which then cuts it",
    ),
    (
        "postgres.check_timeout",
        "a background check: no request waits for it",
    ),
    (
        "redis.connect_timeout",
        "a background task: no request waits for it",
    ),
    (
        "flags.ofrep.idle_timeout",
        "of a connection in nobody's hands; the other side's is not known",
    ),
    (
        "orders.payments.idle_timeout",
        "of a connection in nobody's hands; the other side's is not known",
    ),
    (
        "recommendations.upstream.idle_timeout",
        "of a connection in nobody's hands; the other side's is not known",
    ),
    (
        "shards.move_copy_timeout",
        "an operator's command, for as long as the bucket is large",
    ),
];

/// With all that is left out of the ladders while it is not used.
fn all_in_use() -> Settings {
    let mut settings = Settings::default();
    settings.recommendations.upstream.url = Some("http://recommender".to_owned());
    settings.flags.ofrep.url = Some("http://flags".to_owned());
    settings.orders.payments.url = Some("http://payments".to_owned());
    let east = ClusterConfig {
        buckets: "0..1".parse().unwrap(),
        ..ClusterConfig::default()
    };
    settings.shards.clusters = [("east".to_owned(), east)].into();
    settings
}

/// The dotted keys of all durations whose names say that they are waits.
fn waits(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let key = [key, name].join(".");
                waits(value, key.trim_start_matches('.'), found);
            }
        }
        Value::String(text) if WAITS.iter().any(|end| key.ends_with(end)) => {
            humantime_serde::re::humantime::parse_duration(text).unwrap();
            found.push(key.to_owned());
        }
        _ => {}
    }
}

/// Whether a rule names `key` when it takes `time`.
fn is_named(settings: &Value, key: &str, time: &str) -> bool {
    let mut settings = settings.clone();
    let place = settings.pointer_mut(&format!("/{}", key.replace('.', "/")));
    *place.unwrap() = time.into();
    let settings: Settings = serde_json::from_value(settings).unwrap();
    let faults = settings.rules("dev");
    faults.iter().any(|fault| fault.to_string().contains(key))
}

#[test]
fn no_wait_is_free_to_outlast_the_one_around_it() {
    let settings = all_in_use();
    assert!(
        settings.rules("dev").is_empty(),
        "{:?}",
        settings.rules("dev")
    );
    let settings = serde_json::to_value(&settings).unwrap();
    let mut keys = Vec::new();
    waits(&settings, "", &mut keys);

    // The outermost wait of a ladder may be long, but not short.
    let is_held = |key: &&String| {
        ["1day", "0s"]
            .iter()
            .any(|time| is_named(&settings, key, time))
    };
    let (held, free): (Vec<_>, Vec<_>) = keys.iter().partition(is_held);

    println!("{} waits in ladders, {} free", held.len(), free.len());
    let mut expected = FREE.map(|(key, _)| key).to_vec();
    expected.sort_unstable();
    let mut free: Vec<_> = free.into_iter().map(String::as_str).collect();
    free.sort_unstable();
    assert_eq!(
        free, expected,
        "give each wait its ladder in `settings.rs`, or a reason here"
    );
    assert!(held.len() > 20, "{held:?}");
}
