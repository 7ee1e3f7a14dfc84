//! The walls between the crates, checked against what each `Cargo.toml` says, and the one inside each feature; and the dates of the flags. A crate
//! without a line in [`WALLS`] fails, so that a new one states its place first. A binary of its own, because it needs
//! nothing of the service and answers before that is built.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use time::{Date, Duration, OffsetDateTime};

#[expect(dead_code, reason = "the service uses all of it")]
#[path = "../src/flags/list.rs"]
mod flags;

/// What one crate of the workspace may use.
struct Wall {
    name: &'static str,
    /// Crates of the workspace it may use in what ships.
    workspace: &'static [&'static str],
    /// Fenced outside crates it may use; every other crate of the workspace may not.
    fenced: &'static [&'static str],
    reason: &'static str,
}

const WALLS: &[Wall] = &[
    Wall {
        name: "api",
        workspace: &["data", "resilience", "settings", "telemetry", "worker"],
        fenced: &["axum", "sqlx"],
        reason: "the service sees every leaf; `devstack` serves its tests and never ships",
    },
    Wall {
        name: "data",
        workspace: &["resilience"],
        fenced: &["deadpool-redis", "sqlx"],
        reason: "knows Postgres and Redis, and neither HTTP nor a feature; the breaker before them is the one of `resilience`, \
                 because a second one would have its own faults",
    },
    Wall {
        name: "devstack",
        workspace: &[],
        fenced: &["axum", "sqlx"],
        reason: "a leaf: starts servers for tests, and must not change when the service does",
    },
    Wall {
        name: "resilience",
        workspace: &[],
        fenced: &[],
        reason: "a leaf: decides on what callers tell it, and knows neither HTTP statuses nor SQL nor Redis",
    },
    Wall {
        name: "settings",
        workspace: &[],
        fenced: &["config"],
        reason: "a leaf: reads configuration of any shape, and nothing else",
    },
    Wall {
        name: "telemetry",
        workspace: &[],
        fenced: &["opentelemetry-otlp", "opentelemetry_sdk"],
        reason: "a leaf: names no feature, no setting of another crate, and no server",
    },
    Wall {
        name: "worker",
        workspace: &["data", "resilience"],
        fenced: &["sqlx"],
        reason: "a job is a row of the caller's transaction, which is one of `data`, and matters as much as `resilience` can say; \
                 knows no job in particular, and no HTTP",
    },
];

#[test]
fn every_crate_of_the_workspace_has_its_wall() {
    let mut declared: Vec<_> = WALLS.iter().map(|wall| wall.name.to_owned()).collect();

    let mut present: Vec<_> = packages()
        .iter()
        .map(|package| text(package, "name"))
        .collect();

    declared.sort();
    present.sort();
    assert_eq!(
        present, declared,
        "give each crate one line in WALLS, with its reason"
    );
}

#[test]
fn no_arrow_between_crates_but_those_of_the_map() {
    let members: Vec<_> = WALLS.iter().map(|wall| wall.name).collect();

    let breaches = breaches(|wall, used, kind| {
        members.contains(&used) && kind != "dev" && !wall.workspace.contains(&used)
    });

    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn only_the_named_crates_use_a_fenced_dependency() {
    let fenced: Vec<_> = WALLS.iter().flat_map(|wall| wall.fenced).collect();

    let breaches = breaches(|wall, used, kind| {
        fenced.contains(&&used) && kind != "dev" && !wall.fenced.contains(&used)
    });

    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn tests_use_no_other_crate_of_the_workspace_than_devstack() {
    let members: Vec<_> = WALLS.iter().map(|wall| wall.name).collect();

    let breaches =
        breaches(|_, used, kind| members.contains(&used) && kind == "dev" && used != "devstack");

    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn a_feature_holds_its_sql_in_its_store() {
    let features = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/features");

    let mut elsewhere = Vec::new();
    let stores = files_with("sqlx::query", &features, &mut elsewhere);

    let reason = "the plan test and a reader look for statements in one place";
    assert!(
        elsewhere.is_empty(),
        "SQL belongs into store.rs, because {reason}: {elsewhere:?}"
    );
    assert!(
        stores > 0,
        "no store was found below {}",
        features.display()
    );
}

#[test]
fn no_flag_has_outlived_its_date() {
    let declared = || flags::Flag::ALL.map(flags::Flag::declared);
    let today = OffsetDateTime::now_utc().date();
    let latest = declared().map(|flag| flag.expires).into_iter().max();
    let after: Date = latest.expect("there are flags") + Duration::DAY;

    let now = flags::outlived(declared(), today);
    let then = flags::outlived(declared(), after);

    assert!(now.is_empty(), "{}", now.join("\n"));
    for flag in declared() {
        let named = |sentence: &String| sentence.contains(flag.name);
        assert!(then.iter().any(named), "{then:?}");
    }
}

/// Counts the stores below `folder` that hold `needle`, and collects the other files that do.
fn files_with(needle: &str, folder: &Path, elsewhere: &mut Vec<String>) -> usize {
    let mut stores = 0;
    for entry in fs::read_dir(folder).expect("a folder of the sources") {
        let path = entry.expect("a file of the sources").path();
        if path.is_dir() {
            stores += files_with(needle, &path, elsewhere);
        } else if fs::read_to_string(&path)
            .expect("a text file")
            .contains(needle)
        {
            let is_store = path
                .file_name()
                .is_some_and(|name| name == "store.rs" || name == "http_tests.rs");
            if is_store {
                stores += 1;
            } else {
                elsewhere.push(path.display().to_string());
            }
        }
    }
    stores
}

/// One sentence for each dependency that `forbidden(wall, dependency, kind)` refuses.
fn breaches(forbidden: impl Fn(&Wall, &str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages() {
        let name = text(&package, "name");
        let Some(wall) = WALLS.iter().find(|wall| wall.name == name) else {
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = text(dependency, "name");
            let kind = dependency["kind"].as_str().unwrap_or("normal");
            if forbidden(wall, &used, kind) {
                found.push(format!(
                    "`{name}` must not use `{used}` ({kind}): {}",
                    wall.reason
                ));
            }
        }
    }
    found
}

/// The packages of the workspace, as Cargo reads their manifests.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs: it started this test");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata["packages"]
        .as_array()
        .expect("a list of packages")
        .clone()
}

fn text(value: &Value, key: &str) -> String {
    value[key]
        .as_str()
        .expect("a string, by cargo's format")
        .to_owned()
}
