//! The settings of the calls to one other service.

use std::time::Duration;

use garde::Validate;
use http::{Uri, uri::Scheme};
use resilience::{breaker, bulkhead, retry};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::http::config::{between_1ms_and_1h, is_caller_key, masked};

/// One other service, and how much it may cost us.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it is, such as `https://recommender.internal/v2`; paths are added to it. Not set: it is never called.
    #[garde(inner(custom(base_url)))]
    pub url: Option<String>,
    /// Our key there, a secret, if it is a service like this one (one of its `http.caller_keys`): with it, it believes how much
    /// a call matters, and for whom it is.
    #[serde(serialize_with = "masked")]
    #[garde(inner(custom(is_caller_key)))]
    pub caller_key: Option<SecretString>,
    /// What it knows us by, a secret; sent as `Authorization: Bearer`. Not set: it does not ask.
    #[serde(serialize_with = "masked")]
    #[garde(skip)]
    pub token: Option<SecretString>,
    /// How long opening a connection may take, with TLS.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub connect_timeout: Duration,
    /// How long one attempt may take, from its start to the last byte of the answer.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub attempt_timeout: Duration,
    /// How long all attempts and pauses may take together. A request's own deadline, if it is nearer, counts instead.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub total_timeout: Duration,
    /// How long an idle connection is kept. Shorter than the other side does, or calls meet closed ones.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1h))]
    pub idle_timeout: Duration,
    /// Idle connections that are kept.
    #[garde(range(min = 0, max = 10_000))]
    pub idle_max: usize,
    /// Bytes of a body, of ours as of an answer's.
    #[garde(range(min = 64, max = 104_857_600))]
    pub body_bytes_max: usize,
    /// When it is not asked any more.
    #[garde(dive)]
    pub breaker: breaker::Config,
    /// How many calls to it may be under way.
    #[garde(dive)]
    pub bulkhead: bulkhead::Config,
    /// How often it is asked again.
    #[garde(dive)]
    pub retry: retry::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            caller_key: None,
            token: None,
            connect_timeout: Duration::from_millis(500),
            attempt_timeout: Duration::from_secs(2),
            total_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(20),
            idle_max: 32,
            body_bytes_max: 1024 * 1024,
            breaker: breaker::Config::default(),
            bulkhead: bulkhead::Config::default(),
            retry: retry::Config::default(),
        }
    }
}

/// A password in it would be printed with the settings, and a query would end up in the middle of every target.
fn base_url(url: &str, (): &()) -> garde::Result {
    let problem = "must be http:// or https:// with a host and at most a path: https://recommender.internal/v2";
    let refused = || garde::Error::new(problem);
    let uri: Uri = url.parse().map_err(|_| refused())?;
    let is_http = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
    let is_plain = uri.query().is_none() && !url.contains(['@', '#']);
    if is_http && is_plain && uri.host().is_some_and(|host| !host.is_empty()) {
        return Ok(());
    }
    Err(refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_base_is_a_url() {
        for (url, is_fine) in [
            ("http://recommender", true),
            ("https://recommender.internal:8443/v2/", true),
            ("recommender.internal", false),
            ("ftp://recommender", false),
            ("https://user:canary@recommender", false),
            ("https://recommender/?key=canary", false),
            ("https://recommender/#part", false),
            ("/v2", false),
        ] {
            let config = Config {
                url: Some(url.to_owned()),
                ..Config::default()
            };
            assert_eq!(config.validate().is_ok(), is_fine, "{url}");
        }
    }
}
