//! The settings of the Redis connection, their defaults and the values they accept.

use std::time::Duration;

use deadpool_redis::redis::IntoConnectionInfo;
use resilience::{breaker, bulkhead, ranges::between};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

/// How to reach Redis, and how long to wait for it.
#[derive(Clone, Debug, Serialize, Deserialize, garde::Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS. A secret, because it may hold a password.
    /// The server is Redis 7 or newer, or Valkey: it must speak RESP3 and take NX and GET in one SET.
    #[serde(serialize_with = "masked")]
    #[garde(custom(is_redis_url))]
    pub url: SecretString,
    /// The start of every key, so that several services can share one Redis.
    #[garde(length(min = 1, max = 64), ascii)]
    pub key_prefix: String,
    /// How long one command may take, waiting for its turn included. A shorter request deadline wins.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(1), Duration::from_secs(5))))]
    pub command_timeout: Duration,
    /// How long one attempt to connect may take: name lookup, TCP, TLS, login and a first PING.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), Duration::from_secs(30))))]
    pub connect_timeout: Duration,
    /// How often the connection is checked with a PING, busy or not.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(50), Duration::from_secs(60))))]
    pub check_interval: Duration,
    /// The longest pause between two attempts to connect. The first pause is 50 ms, and each next one doubles.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(50), Duration::from_secs(60))))]
    pub reconnect_delay_max: Duration,
    /// When it is not asked any more. Commands that fail or are slow side by side count as one.
    #[garde(dive)]
    pub breaker: breaker::Config,
    /// How many commands may be under way, over the one connection. Further ones are refused as if Redis were away.
    #[garde(dive)]
    pub bulkhead: bulkhead::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: SecretString::from("redis://127.0.0.1:6379"),
            key_prefix: "holdfast".to_owned(),
            command_timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_millis(500),
            check_interval: Duration::from_millis(500),
            reconnect_delay_max: Duration::from_secs(1),
            breaker: breaker::Config {
                failures_in_row: 3,
                slow_after: Duration::from_millis(25),
                open_min: Duration::from_millis(100),
                open_max: Duration::from_secs(1),
                ..breaker::Config::default()
            },
            // Nobody waits: what is asked of Redis is worth less than the time that a queue would cost.
            bulkhead: bulkhead::Config {
                calls_max: 1024,
                waiting_max: 0,
                wait: Duration::ZERO,
            },
        }
    }
}

fn is_redis_url(url: &SecretString, (): &()) -> garde::Result {
    match url.expose_secret().into_connection_info() {
        Ok(_) => Ok(()),
        Err(_) => Err(garde::Error::new(
            "must be a URL that starts with redis:// or rediss://",
        )),
    }
}

fn masked<S: Serializer>(_: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("********")
}

#[cfg(test)]
mod tests {
    use garde::Validate;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::redis::Redis;

    #[test]
    fn the_url_shows_nowhere() {
        let config = Config {
            url: "redis://user:hunter2@127.0.0.1:1/".into(),
            ..Config::default()
        };
        let wrong = Config {
            url: "http://user:hunter2@127.0.0.1/".into(),
            ..Config::default()
        };

        let shown = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
        let report = wrong.validate().unwrap_err().to_string();
        let invalid = Redis::new(&wrong, &mut Registry::default()).err().unwrap();

        assert!(!shown.contains("hunter2"));
        assert!(report.contains("must be a URL that starts with redis://"));
        assert!(!format!("{report}{invalid}{invalid:?}").contains("hunter2"));
    }

    #[test]
    fn the_defaults_are_valid_and_limits_are_told() {
        let impatient = Config {
            command_timeout: Duration::ZERO,
            ..Config::default()
        };

        let report = impatient.validate().unwrap_err().to_string();

        assert!(Config::default().validate().is_ok());
        assert_eq!(report.trim(), "command_timeout: must be from 1ms to 5s");
    }
}
