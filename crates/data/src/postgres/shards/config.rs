//! Settings of the clusters beside home. Pools, timeouts and checks are those of [`postgres::Config`](crate::postgres::Config).

use std::collections::BTreeMap;
use std::time::Duration;

use garde::Validate;
use resilience::ranges::between;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Bucket, Buckets};
use crate::postgres::config::{is_postgres_url, masked, masked_list, masked_option};

/// The name of the cluster that `postgres.primary_url` leads to.
pub const HOME: &str = "home";

/// Clusters beside the 1024 buckets' first home, as a byte counts them.
pub(super) const CLUSTERS_MAX: usize = 64;

/// The clusters beside home, and how far a process may be behind the map that says which holds what.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Clusters by name, 1 to 64 of a-z, 0-9 and -. None: every row is at home, and there is no map.
    #[garde(dive, custom(are_names))]
    pub clusters: BTreeMap<String, ClusterConfig>,
    /// Home's URL for `holdfast shard move`, as `admin_url` of the other clusters. None: `postgres.direct_url`.
    #[serde(serialize_with = "masked_option")]
    #[garde(inner(custom(is_postgres_url)))]
    pub home_admin_url: Option<SecretString>,
    /// How often a process looks whether the map has changed.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(60))))]
    pub map_interval: Duration,
    /// How old a process's map may be. With an older one it refuses what is sharded, because others may write elsewhere by now.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(100), Duration::from_secs(600))))]
    pub map_age_max: Duration,
    /// How long a move waits after its switch, before the rows left behind are deleted: longer than any process may use an
    /// old map, and any request it began with one.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(200), Duration::from_secs(3600))))]
    pub move_grace: Duration,
    /// How long a move may hold up writes to the buckets it moves. It gives them back and fails, when verifying takes longer.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(60))))]
    pub move_pause_max: Duration,
    /// How long a move may take to copy, and to catch up with what is written meanwhile.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_secs(1), Duration::from_secs(7 * 86_400))))]
    pub move_copy_timeout: Duration,
}

/// A cluster beside home.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// URL of the primary, which takes every write.
    #[serde(serialize_with = "masked")]
    #[garde(custom(is_postgres_url))]
    pub primary_url: SecretString,
    /// URLs of its streaming replicas, separated by commas. None: the primary takes the reads.
    #[serde(serialize_with = "masked_list", deserialize_with = "list_or_text")]
    #[garde(length(max = 16), inner(custom(is_postgres_url)))]
    pub replica_urls: Vec<SecretString>,
    /// URL of the primary without a pooler between, for migrations. None: `primary_url`.
    #[serde(serialize_with = "masked_option")]
    #[garde(inner(custom(is_postgres_url)))]
    pub direct_url: Option<SecretString>,
    /// URL of the primary for `holdfast shard move`: reached by that command and by the servers of the other clusters, past
    /// any pooler, by a role that may replicate and make publications and subscriptions. None: `direct_url`.
    #[serde(serialize_with = "masked_option")]
    #[garde(inner(custom(is_postgres_url)))]
    pub admin_url: Option<SecretString>,
    /// Buckets it holds from the beginning, as `0..511,700`; the others are at home. Read once, when the first `holdfast migrate`
    /// deals them; from then on they move by `holdfast shard move`.
    #[garde(skip)]
    pub buckets: Buckets,
}

/// Two clusters that claim the same buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The names of both.
    pub clusters: [String; 2],
    /// What both claim.
    pub buckets: Buckets,
}

impl Config {
    /// Every two clusters that claim the same buckets.
    pub fn overlaps(&self) -> Vec<Overlap> {
        let pairs = self.clusters.iter().enumerate().flat_map(|(nth, one)| {
            let others = self.clusters.iter().skip(nth + 1);
            others.map(move |other| (one, other))
        });
        let overlap = |((one, first), (other, second)): (
            (&String, &ClusterConfig),
            (&String, &ClusterConfig),
        )| Overlap {
            clusters: [one.clone(), other.clone()],
            buckets: first.buckets.common(&second.buckets),
        };
        pairs
            .map(overlap)
            .filter(|overlap| !overlap.buckets.is_empty())
            .collect()
    }

    /// The cluster each bucket begins on, by the bucket's number.
    pub(super) fn dealt(&self) -> Vec<&str> {
        let mut dealt = vec![HOME; Bucket::COUNT];
        for (name, cluster) in &self.clusters {
            for bucket in cluster.buckets.iter() {
                dealt[bucket.index()] = name;
            }
        }
        dealt
    }
}

impl ClusterConfig {
    /// The URL of the primary for what needs a session of its own.
    pub fn direct_url(&self) -> &SecretString {
        self.direct_url.as_ref().unwrap_or(&self.primary_url)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            clusters: BTreeMap::new(),
            home_admin_url: None,
            map_interval: Duration::from_secs(1),
            map_age_max: Duration::from_secs(5),
            move_grace: Duration::from_secs(15),
            move_pause_max: Duration::from_secs(3),
            move_copy_timeout: Duration::from_secs(86_400),
        }
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            primary_url: SecretString::from(""),
            replica_urls: Vec::new(),
            direct_url: None,
            admin_url: None,
            buckets: Buckets::default(),
        }
    }
}

/// Names go into metrics, into the map and into the names of settings.
fn are_names(clusters: &BTreeMap<String, ClusterConfig>, _: &()) -> garde::Result {
    if clusters.len() > CLUSTERS_MAX {
        return Err(garde::Error::new("must be 64 clusters or fewer"));
    }
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = |name: &String| {
        (1..=64).contains(&name.len()) && name.bytes().all(is_plain) && name != HOME
    };
    match clusters.keys().find(|name| !is_name(name)) {
        None => Ok(()),
        Some(name) => Err(garde::Error::new(format!(
            "{name:?} cannot name a cluster: use 1 to 64 of a-z, 0-9 and -, and not `{HOME}`"
        ))),
    }
}

/// The entries of a map are not known before they are set, so the environment gives their lists as one text.
fn list_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SecretString>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Urls {
        List(Vec<String>),
        Text(String),
    }
    let urls = match Urls::deserialize(deserializer)? {
        Urls::List(urls) => urls,
        Urls::Text(text) => text.split(',').map(|url| url.trim().to_owned()).collect(),
    };
    let urls = urls.into_iter().filter(|url| !url.is_empty());
    Ok(urls.map(SecretString::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(buckets: &str) -> ClusterConfig {
        ClusterConfig {
            primary_url: SecretString::from("postgres://u:hunter2@host/db"),
            admin_url: Some(SecretString::from("postgres://u:hunter2@host/db")),
            buckets: buckets.parse().unwrap(),
            ..ClusterConfig::default()
        }
    }

    fn config<const N: usize>(clusters: [(&str, &str); N]) -> Config {
        let clusters = clusters.map(|(name, buckets)| (name.to_owned(), cluster(buckets)));
        Config {
            clusters: clusters.into(),
            ..Config::default()
        }
    }

    #[test]
    fn buckets_that_two_clusters_claim_are_named_with_both() {
        let overlaps = config([("east", "0..9"), ("north", "20"), ("west", "8..20")]).overlaps();

        let found = overlaps
            .iter()
            .map(|overlap| (overlap.clusters.join(" "), overlap.buckets.to_string()));
        let found: Vec<_> = found.collect();
        assert_eq!(
            found,
            [
                ("east west".to_owned(), "8..9".to_owned()),
                ("north west".to_owned(), "20".to_owned())
            ]
        );
    }

    #[test]
    fn what_nobody_claims_is_at_home() {
        let config = config([("east", "1..2"), ("west", "1023")]);

        let dealt = config.dealt();

        assert_eq!(dealt[..4], ["home", "east", "east", "home"]);
        assert_eq!(dealt[1022..], ["home", "west"]);
    }

    #[test]
    fn a_name_that_cannot_be_one_is_refused_and_no_secret_shows() {
        for name in ["", "home", "East", "a.b"] {
            let config = config([(name, "")]);
            let report = config.validate().unwrap_err().to_string();
            assert!(report.contains("cannot name a cluster"), "{name}: {report}");
        }
        let good = config([("east", "")]);
        good.validate().unwrap();
        let shown = format!("{good:?} {}", serde_json::to_string(&good).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
