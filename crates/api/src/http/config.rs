//! The settings of a listener and of what passes through it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use garde::Validate;
use resilience::ranges::between;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::{client_address::ForwardedBy, envelope::CALLER_KEY_BYTES_MAX};

/// The public listener: `http.*`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Config {
    /// Address and port of the public listener.
    pub listen: SocketAddr,
    /// Open connections; further ones wait in the kernel's backlog.
    #[garde(range(min = 1, max = 1_000_000))]
    pub connections_max: usize,
    /// How long a new connection may stay silent.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub first_byte_timeout: Duration,
    /// How long a request head may take from its first byte to its last.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub head_timeout: Duration,
    /// How long the balancer before the service keeps an idle connection; only its place before `idle_timeout` is used here.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub balancer_idle: Duration,
    /// How long a keep-alive connection may be idle between requests. Longer than the balancer keeps it.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub idle_timeout: Duration,
    /// How long a client may pause while it sends a body.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub body_stall_timeout: Duration,
    /// How long a client may pause while it reads a response.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub write_stall_timeout: Duration,
    /// Bytes of a request line and its headers together.
    #[garde(range(min = 1024, max = 65536))]
    pub head_bytes_max: usize,
    /// Headers of a request; hyper itself parses no more than 100.
    #[garde(range(min = 8, max = 100))]
    pub headers_max: usize,
    /// Bytes of a request target.
    #[garde(range(min = 256, max = 32768))]
    pub uri_bytes_max: usize,
    /// Bytes of a request body.
    #[garde(range(min = 1024, max = 104_857_600))]
    pub body_bytes_max: usize,
    /// Nested arrays and objects in a JSON body.
    #[garde(range(min = 2, max = 120))]
    pub json_depth_max: usize,
    /// Bytes from which a response is compressed.
    #[garde(range(min = 0, max = 65535))]
    pub compress_bytes_min: u64,
    /// Deadline of requests that read (GET, HEAD).
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub read_deadline: Duration,
    /// Deadline of requests that write.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub write_deadline: Duration,
    /// Proxies before this service that are ours, each of which adds the address it is asked from to `forwarded_by`. 0: clients
    /// connect to us, and what they say of their address counts for nothing.
    #[garde(range(min = 0, max = 16))]
    pub trusted_hops: u8,
    /// The header in which they do: `x-forwarded-for` or `forwarded`.
    pub forwarded_by: ForwardedBy,
    /// Keys of 32 to 256 characters by which other services of ours are known (`Caller-Key`). Whoever has one may raise a
    /// request's criticality and say for whom it is. None: nobody may.
    #[serde(serialize_with = "masked_list")]
    #[garde(length(max = 16), inner(custom(is_caller_key)))]
    pub caller_keys: Vec<SecretString>,
    /// The share of successful requests that leave a line in the log, from 0 to 1. Failed ones always do.
    #[garde(range(min = 0.0, max = 1.0))]
    pub log_success_ratio: f64,
    /// Origins that may send a session's cookie with a write, besides the service's own.
    pub allowed_origins: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            connections_max: 10_000,
            first_byte_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(5),
            balancer_idle: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
            body_stall_timeout: Duration::from_secs(10),
            write_stall_timeout: Duration::from_secs(10),
            head_bytes_max: 16 * 1024,
            headers_max: 64,
            uri_bytes_max: 8 * 1024,
            body_bytes_max: 1024 * 1024,
            json_depth_max: 32,
            compress_bytes_min: 1024,
            read_deadline: Duration::from_secs(2),
            write_deadline: Duration::from_secs(5),
            trusted_hops: 0,
            forwarded_by: ForwardedBy::XForwardedFor,
            caller_keys: Vec::new(),
            log_success_ratio: 1.0,
            allowed_origins: Vec::new(),
        }
    }
}

/// The admin listener: `admin.*`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct AdminConfig {
    /// Address and port of the admin listener. Never reachable from outside the cluster.
    pub listen: SocketAddr,
    /// What changes anything here must carry as `Authorization: Bearer …`. Without it changes are accepted only while
    /// `listen` is a loopback address.
    #[serde(serialize_with = "masked")]
    pub token: Option<SecretString>,
    /// Open connections.
    #[garde(range(min = 1, max = 10_000))]
    pub connections_max: usize,
    /// How long the request runtime may stall before `/health` fails.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub stall_timeout: Duration,
    /// Dependencies without which the service is not ready: `postgres` (any node), `postgres-primary`, `redis`.
    #[garde(inner(custom(known_dependency)))]
    pub required: Vec<String>,
}

fn known_dependency(name: &str, _: &()) -> garde::Result {
    if ["postgres", "postgres-primary", "redis"].contains(&name) {
        return Ok(());
    }
    Err(garde::Error::new(
        "must be postgres, postgres-primary or redis",
    ))
}

/// Nothing here may be switched off with a zero, nor wait for longer than anyone would.
pub(crate) fn between_1ms_and_1h(duration: &Duration, _: &()) -> garde::Result {
    between(Duration::from_millis(1), Duration::from_secs(3600))(duration, &())
}

pub(crate) fn is_caller_key(key: &SecretString, _: &()) -> garde::Result {
    if (32..=CALLER_KEY_BYTES_MAX).contains(&key.expose_secret().len()) {
        return Ok(());
    }
    Err(garde::Error::new("must have 32 to 256 characters"))
}

fn masked_list<S: Serializer>(keys: &[SecretString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(keys.iter().map(|_| "********"))
}

pub(crate) fn masked<S: Serializer>(
    secret: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| "********").serialize(serializer)
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
            token: None,
            connections_max: 256,
            stall_timeout: Duration::from_secs(5),
            required: vec!["postgres".to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_of_zero_or_without_end_is_refused() {
        for wait in [Duration::ZERO, Duration::MAX] {
            let config = Config {
                head_timeout: wait,
                ..Config::default()
            };

            assert!(config.validate().is_err(), "{wait:?}");
        }
        assert!(Config::default().validate().is_ok());
    }
}
