use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use garde::Validate;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::*;

const CANARY: &str = "canary-7f3a";

#[derive(Clone, Debug, Default, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    #[garde(dive)]
    http: Http,
    #[garde(dive)]
    postgres: Postgres,
    #[garde(dive)]
    clusters: BTreeMap<String, Cluster>,
}

/// An entry that the operator names.
#[derive(Clone, Debug, Default, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
struct Cluster {
    #[garde(custom(is_url))]
    #[serde(serialize_with = "masked")]
    url: SecretString,
    #[garde(range(max = 9))]
    weight: u8,
}

#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
struct Http {
    #[garde(length(min = 3))]
    listen: String,
    #[garde(range(min = 1, max = 64))]
    workers: u16,
    #[garde(skip)]
    compress: bool,
    #[garde(skip)]
    format: Format,
    #[garde(skip)]
    #[serde(with = "humantime_serde")]
    read_deadline: Duration,
    #[garde(skip)]
    proxy: Option<String>,
    #[garde(dive)]
    retry: Retry,
}

/// A section of a type that other sections could have, too, with defaults of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
struct Retry {
    #[garde(skip)]
    extra_max: u32,
    #[garde(skip)]
    #[serde(with = "humantime_serde")]
    pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            extra_max: 2,
            pause: Duration::from_secs(1),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Auto,
    Json,
}

#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
struct Postgres {
    #[garde(custom(is_url))]
    #[serde(serialize_with = "masked")]
    primary_url: SecretString,
    #[garde(inner(length(min = 3)))]
    replica_urls: Vec<String>,
    #[garde(skip)]
    #[serde(with = "humantime_serde")]
    attempt_timeout: Duration,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8080".to_owned(),
            workers: 2,
            compress: true,
            format: Format::Auto,
            read_deadline: Duration::from_secs(2),
            proxy: None,
            retry: Retry {
                pause: Duration::from_millis(20),
                ..Retry::default()
            },
        }
    }
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            primary_url: "".into(),
            replica_urls: Vec::new(),
            attempt_timeout: Duration::from_secs(1),
        }
    }
}

/// A careless rule: its message repeats the value.
fn is_url(url: &SecretString, _: &()) -> garde::Result {
    let url = url.expose_secret();
    if url.is_empty() || url.starts_with("postgres://") {
        return Ok(());
    }
    Err(garde::Error::new(format!(
        "{url} must begin with postgres://"
    )))
}

fn masked<S: Serializer>(_: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("********")
}

impl Settings for Sample {
    const PROFILES: &'static [(&'static str, &'static str)] = &[
        ("dev", "[postgres]\nprimary_url = 'postgres://dev'\n"),
        ("prod", "[http]\nworkers = 8\n"),
    ];
    const SECRETS: &'static [&'static str] = &["postgres.primary_url", "clusters.*.url"];

    fn rules(&self, _: &str) -> Vec<Fault> {
        ladder(&[
            ("postgres.attempt_timeout", self.postgres.attempt_timeout),
            ("http.read_deadline", self.http.read_deadline),
        ])
    }
}

fn sample(vars: &[(&str, &str)]) -> Result<Loaded<Sample>, Faults> {
    load(&vars.iter().copied().collect())
}

fn faults(vars: &[(&str, &str)]) -> String {
    sample(vars)
        .map(|loaded| loaded.render())
        .expect_err("these settings are faulty")
        .to_string()
}

/// A file that is gone when the test ends.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str, mode: u32, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("settings-{}-{name}", std::process::id()));
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn each_layer_lies_over_the_one_before() {
    let file = Temp::new(
        "layers.toml",
        0o600,
        "[http]\nworkers = 3\nlisten = 'file:1'\ncompress = false\n",
    );
    let secret = Temp::new("layers-secret", 0o400, "postgres://mounted\n");

    let loaded = sample(&[
        ("HOLDFAST_PROFILE", "prod"),
        ("HOLDFAST_CONFIG_FILE", file.path()),
        ("HOLDFAST__HTTP__LISTEN", "env:1"),
        ("HOLDFAST__POSTGRES__PRIMARY_URL", "postgres://env"),
        ("HOLDFAST__POSTGRES__PRIMARY_URL_FILE", secret.path()),
    ])
    .unwrap();

    assert_eq!(loaded.profile, "prod");
    assert_eq!(
        loaded.settings.http.workers, 3,
        "the file is over the profile"
    );
    assert_eq!(
        loaded.settings.http.listen, "env:1",
        "the environment is over the file"
    );
    assert!(!loaded.settings.http.compress);
    assert_eq!(
        loaded.settings.postgres.primary_url.expose_secret(),
        "postgres://mounted"
    );
    assert_eq!(
        loaded.settings.http.read_deadline,
        Duration::from_secs(2),
        "untouched keys keep the default"
    );
    assert_eq!(
        loaded.origin("http.listen"),
        Origin::Env("HOLDFAST__HTTP__LISTEN".to_owned())
    );
}

#[test]
fn setting_one_key_leaves_the_defaults_of_its_neighbours_as_they_are() {
    let loaded = sample(&[("HOLDFAST__HTTP__RETRY__EXTRA_MAX", "1")]).unwrap();

    let retry = loaded.settings.http.retry;
    assert_eq!(
        retry,
        Retry {
            extra_max: 1,
            pause: Duration::from_millis(20),
        }
    );
}

#[test]
fn text_from_the_environment_becomes_what_its_field_accepts() {
    let loaded = sample(&[
        ("HOLDFAST__HTTP__WORKERS", "16"),
        ("HOLDFAST__HTTP__COMPRESS", "false"),
        ("HOLDFAST__HTTP__FORMAT", "json"),
        ("HOLDFAST__HTTP__READ_DEADLINE", "1m 5s"),
        ("HOLDFAST__HTTP__PROXY", "http://proxy"),
        ("HOLDFAST__HTTP__LISTEN", ""),
        ("HOLDFAST__POSTGRES__REPLICA_URLS", "one, two,"),
        ("HOLDFAST_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ])
    .unwrap();

    let http = &loaded.settings.http;
    assert_eq!(
        (http.workers, http.compress, http.format),
        (16, false, Format::Json)
    );
    assert_eq!(http.read_deadline, Duration::from_secs(65));
    assert_eq!(http.proxy.as_deref(), Some("http://proxy"));
    assert_eq!(
        http.listen, "0.0.0.0:8080",
        "a variable set to nothing counts as not set"
    );
    assert_eq!(loaded.settings.postgres.replica_urls, ["one", "two"]);
}

/// A variable, its value, and what the one fault must say.
const FAULTY: &[(&str, &str, &[&str])] = &[
    (
        "HOLDFAST__HTTP__LISTN",
        "x",
        &[
            "http.listn",
            "env HOLDFAST__HTTP__LISTN",
            "mean http.listen (env HOLDFAST__HTTP__LISTEN)",
        ],
    ),
    (
        "HOLDFAST__ENTIRELY__ELSE",
        "x",
        &["entirely.else", "not a setting", "check-config"],
    ),
    (
        "HOLDFAST__HTTP",
        "x",
        &["http (env HOLDFAST__HTTP)", "is a section"],
    ),
    (
        "HOLDFAST__HTTP__WORKERS",
        "many",
        &[
            "http.workers = \"many\"",
            "env HOLDFAST__HTTP__WORKERS",
            "must be an integer",
        ],
    ),
    (
        "HOLDFAST__HTTP__WORKERS",
        "-1",
        &["http.workers = \"-1\"", "must not be negative"],
    ),
    (
        "HOLDFAST__HTTP__WORKERS",
        "99999",
        &["http.workers = \"99999\"", "must be "],
    ),
    (
        "HOLDFAST__HTTP__WORKERS",
        "65",
        &["http.workers = 65", "must not be greater than 64"],
    ),
    (
        "HOLDFAST__HTTP__COMPRESS",
        "perhaps",
        &["http.compress = \"perhaps\"", "must be a boolean"],
    ),
    (
        "HOLDFAST__HTTP__FORMAT",
        "xml",
        &["http.format = \"xml\"", "auto", "json"],
    ),
    (
        "HOLDFAST__HTTP__READ_DEADLINE",
        "5 parsecs",
        &[
            "http.read_deadline = \"5 parsecs\"",
            "duration such as 250ms",
        ],
    ),
    (
        "HOLDFAST__POSTGRES__REPLICA_URLS",
        "good,x",
        &["postgres.replica_urls = [\"good\",\"x\"]", "[1] length"],
    ),
    (
        "HOLDFAST__POSTGRES__ATTEMPT_TIMEOUT",
        "3s",
        &[
            "postgres.attempt_timeout = \"3s\" (env",
            "http.read_deadline = \"2s\" (built-in default)",
            "shorter",
        ],
    ),
    (
        "HOLDFAST__POSTGRES__PRIMARY_URL_FILE",
        "/nowhere",
        &[
            "postgres.primary_url (file /nowhere named by env",
            "cannot be read",
        ],
    ),
    (
        "HOLDFAST__POSTGRES__PRIMARY_URL_FILE",
        "/dev/null",
        &["is not a file"],
    ),
    (
        "HOLDFAST_CONFIG_FILE",
        "/nowhere.toml",
        &["file /nowhere.toml: cannot be read"],
    ),
    (
        "HOLDFAST_PROFILE",
        "prd",
        &["HOLDFAST_PROFILE = \"prd\"", "dev, prod"],
    ),
];

#[test]
fn every_fault_names_its_setting_its_origin_and_what_is_allowed() {
    for (name, value, expected) in FAULTY {
        let text = faults(&[(name, value)]);

        assert_eq!(
            text.lines().count(),
            1,
            "one line for {name}={value}: {text}"
        );
        for part in *expected {
            assert!(
                text.contains(part),
                "{name}={value}\n  says    {text}\n  without {part}"
            );
        }
    }
}

#[test]
fn all_faults_are_reported_at_once() {
    let file = Temp::new(
        "many.toml",
        0o600,
        "[http]\nworkers = 'x'\nprxy = 1\n[postgres]\nunknown = {a = 1, b = 2}\n",
    );

    let text = faults(&[
        ("HOLDFAST_CONFIG_FILE", file.path()),
        ("HOLDFAST__HTTP__LISTEN", "x"),
        ("HOLDFAST__POSTGRES__ATTEMPT_TIMEOUT", "9s"),
        ("HOLDFAST__HTTP__FORMAT", "xml"),
    ]);

    let keys: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split([' ', ':']).next())
        .collect();
    assert_eq!(keys.len(), 7, "{text}");
    for key in [
        "http.workers",
        "http.prxy",
        "postgres.unknown.a",
        "postgres.unknown.b",
        "http.listen",
        "http.format",
        "postgres.attempt_timeout",
    ] {
        assert!(keys.contains(&key), "{key} is missing in\n{text}");
    }
}

#[test]
fn a_setting_with_a_fault_of_its_own_causes_no_second_one() {
    let text = faults(&[
        ("HOLDFAST__HTTP__READ_DEADLINE", "never"),
        ("HOLDFAST__POSTGRES__ATTEMPT_TIMEOUT", "5s"),
    ]);

    let mounted = faults(&[
        ("HOLDFAST_PROFILE", "prod"),
        ("HOLDFAST__POSTGRES__PRIMARY_URL_FILE", "/nowhere"),
    ]);

    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(mounted.lines().count(), 1, "{mounted}");
}

#[test]
fn a_broken_file_is_placed_but_not_quoted() {
    let file = Temp::new(
        "broken.toml",
        0o600,
        &format!("[postgres]\nprimary_url = \"{CANARY}\n"),
    );

    let text = faults(&[("HOLDFAST_CONFIG_FILE", file.path())]);

    assert!(text.contains("line 2"), "{text}");
    assert!(!text.contains(CANARY), "{text}");
}

#[test]
fn secrets_are_never_printed() {
    let broken = Temp::new(
        "canary.toml",
        0o644,
        &format!("[postgres]\nprimary_url = ['{CANARY}']\n"),
    );
    let open = Temp::new("canary-secret", 0o644, CANARY);
    let bad: [&[(&str, &str)]; 5] = [
        &[("HOLDFAST__POSTGRES__PRIMARY_URL", CANARY)],
        &[("HOLDFAST__POSTGRES__PRIMARY_URI", CANARY)],
        &[("HOLDFAST__POSTGRES", CANARY)],
        &[("HOLDFAST_CONFIG_FILE", broken.path())],
        &[
            ("HOLDFAST_PROFILE", "prod"),
            ("HOLDFAST__POSTGRES__PRIMARY_URL_FILE", open.path()),
        ],
    ];

    for vars in bad {
        let error = sample(vars).expect_err("faulty");
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
    }
    let url = format!("postgres://{CANARY}");
    let vars = [("HOLDFAST__POSTGRES__PRIMARY_URL", url.as_str())];
    let loaded = sample(&vars).unwrap();
    let sources: Sources = vars.into_iter().collect();
    let printed = format!("{} {loaded:?} {sources:?}", loaded.render());

    assert!(!printed.contains(CANARY), "{printed}");
}

#[test]
fn prod_refuses_secrets_that_are_missing_published_or_open() {
    let good = "postgres://chosen";
    let table = [
        ("world-readable", Some(0o644), good, Some("mode 0644")),
        ("world-writable", Some(0o602), good, Some("mode 0602")),
        ("group-readable", Some(0o440), good, None),
        ("private", Some(0o400), good, None),
        (
            "published",
            Some(0o400),
            "postgres://dev",
            Some("published"),
        ),
        ("missing", None, "", Some("must be set in prod")),
    ];

    for (name, mode, text, problem) in table {
        let file = mode.map(|mode| Temp::new(&format!("prod-{name}"), mode, text));
        let path = file.as_ref().map(|file| file.path()).unwrap_or_default();
        let result = sample(&[
            ("HOLDFAST_PROFILE", "prod"),
            ("HOLDFAST__POSTGRES__PRIMARY_URL_FILE", path),
        ]);

        match problem {
            Some(problem) => {
                let text = result.expect_err(name).to_string();
                assert!(
                    text.contains("postgres.primary_url") && text.contains(problem),
                    "{name}: {text}"
                );
            }
            None => assert!(result.is_ok(), "{name}: {:?}", result.err()),
        }
    }
}

#[test]
fn prod_refuses_a_secret_in_an_open_settings_file() {
    let text = "[http]\nworkers = 3\n[postgres]\nprimary_url = 'postgres://chosen'\n";
    let open = Temp::new("prod-open.toml", 0o644, text);
    let shut = Temp::new("prod-shut.toml", 0o640, text);
    let load = |file: &Temp| {
        sample(&[
            ("HOLDFAST_PROFILE", "prod"),
            ("HOLDFAST_CONFIG_FILE", file.path()),
        ])
    };

    let (refused, taken) = (load(&open), load(&shut));

    let text = refused.expect_err("the file is open").to_string();
    assert!(
        text.starts_with("postgres.primary_url") && text.contains("mode 0644"),
        "{text}"
    );
    assert!(taken.is_ok());
}

#[test]
fn dev_takes_its_published_secret_and_open_files() {
    let open = Temp::new("dev-secret", 0o644, "postgres://anything");

    let published = sample(&[]);
    let mounted = sample(&[("HOLDFAST__POSTGRES__PRIMARY_URL_FILE", open.path())]);

    assert_eq!(
        published
            .unwrap()
            .settings
            .postgres
            .primary_url
            .expose_secret(),
        "postgres://dev"
    );
    assert!(mounted.is_ok());
}

#[test]
fn rendering_shows_every_value_with_its_origin() {
    let text = sample(&[("HOLDFAST__HTTP__WORKERS", "4")])
        .unwrap()
        .render();

    let line = |key: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_else(|| panic!("{key} in\n{text}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        line("http.workers"),
        "http.workers = 4 # env HOLDFAST__HTTP__WORKERS"
    );
    assert_eq!(
        line("http.proxy"),
        "http.proxy = (not set) # built-in default"
    );
    assert_eq!(
        line("http.read_deadline"),
        "http.read_deadline = \"2s\" # built-in default"
    );
    assert_eq!(
        line("postgres.primary_url"),
        "postgres.primary_url = ******** # profile dev"
    );
}

#[test]
fn a_ladder_faults_each_pair_that_does_not_rise() {
    let seconds = Duration::from_secs;

    let rising = ladder(&[("a", seconds(1)), ("b", seconds(2)), ("c", seconds(3))]);
    let broken = ladder(&[("a", seconds(1)), ("b", seconds(1)), ("c", seconds(0))]);

    assert!(rising.is_empty());
    assert_eq!(
        broken
            .iter()
            .map(|fault| fault.to_string().split(':').next().map(str::to_owned))
            .collect::<Vec<_>>(),
        [Some("a, b".to_owned()), Some("b, c".to_owned())]
    );
}

#[test]
fn entries_that_the_operator_names_are_set_field_by_field_from_everywhere() {
    let url = Temp::new("cluster-url", 0o400, "postgres://canary-7f3a\n");
    let file = Temp::new("clusters", 0o400, "[clusters.east]\nweight = 3\n");

    let loaded = sample(&[
        ("HOLDFAST_CONFIG_FILE", file.path()),
        ("HOLDFAST__CLUSTERS__EAST__URL_FILE", url.path()),
        ("HOLDFAST__CLUSTERS__WEST__WEIGHT", "4"),
    ])
    .unwrap();

    let clusters = &loaded.settings.clusters;
    assert_eq!(
        clusters["east"].url.expose_secret(),
        "postgres://canary-7f3a"
    );
    assert_eq!((clusters["east"].weight, clusters["west"].weight), (3, 4));
    let shown = loaded.render();
    assert!(shown.contains("clusters.east.weight = 3"), "{shown}");
    assert!(shown.contains("clusters.east.url = ********"), "{shown}");
    assert!(!shown.contains(CANARY), "{shown}");
}

#[test]
fn a_faulty_entry_is_named_and_its_secrets_are_not() {
    let said = faults(&[
        ("HOLDFAST__CLUSTERS__EAST__WEIGHT", "10"),
        ("HOLDFAST__CLUSTERS__WEST__WEIGHT", "heavy"),
        ("HOLDFAST__CLUSTERS__EAST__URL", "mysql://canary-7f3a"),
        ("HOLDFAST__CLUSTERS__EAST__URLL", "postgres://canary-7f3a"),
    ]);

    assert!(said.contains("clusters.east.weight = 10"), "{said}");
    assert!(said.contains("clusters.west.weight = \"heavy\""), "{said}");
    assert!(
        said.contains("clusters.east.urll (env HOLDFAST__CLUSTERS__EAST__URLL)"),
        "{said}"
    );
    assert!(said.contains("clusters.east.url = ********"), "{said}");
    assert!(!said.contains(CANARY), "{said}");
}

#[test]
fn prod_looks_at_the_secrets_of_every_entry() {
    let open = Temp::new("open-url", 0o604, "postgres://canary-7f3a");

    let said = faults(&[
        ("HOLDFAST_PROFILE", "prod"),
        ("HOLDFAST__POSTGRES__PRIMARY_URL", "postgres://own"),
        ("HOLDFAST__CLUSTERS__EAST__URL_FILE", open.path()),
    ]);

    assert!(
        said.contains("clusters.east.url") && said.contains("mode 0604"),
        "{said}"
    );
}
