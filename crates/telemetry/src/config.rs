//! The settings of this crate.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

/// How logs and traces leave the process.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which log events are written, as directives: a level for everything, then exceptions by module
    /// (`info,sqlx=warn`). Can be changed at run time.
    #[garde(custom(directives))]
    pub log_filter: String,
    /// How log lines look: `json`, `pretty`, or `auto` (pretty on a terminal, json elsewhere).
    #[garde(skip)]
    pub log_format: LogFormat,
    /// The name of the service in traces.
    #[garde(length(min = 1, max = 64))]
    pub service_name: String,
    /// The OTLP collector's gRPC address, such as `http://collector:4317`. Traces are off without it.
    #[garde(inner(custom(http_url)))]
    pub otlp_endpoint: Option<String>,
    /// The share of requests that are traced when no caller decides, from 0 to 1.
    #[garde(range(min = 0.0, max = 1.0))]
    pub sample_ratio: f64,
    /// Whether a caller's `traceparent` decides if its request is traced. Switch it off where strangers call.
    #[garde(skip)]
    pub trust_caller: bool,
    /// Spans that may wait for export. Those that end while the queue is full are dropped and counted.
    #[garde(range(min = 1, max = 1_000_000))]
    pub queue_spans_max: usize,
    /// Spans sent in one export.
    #[garde(range(min = 1, max = 10_000))]
    pub batch_spans_max: usize,
    /// The longest a span waits for its batch to fill.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1min))]
    pub batch_delay: Duration,
    /// The longest one export may take; the batch is lost then.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1min))]
    pub export_timeout: Duration,
    /// The longest the last flush may take at shutdown.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between_1ms_and_1min))]
    pub flush_timeout: Duration,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `Pretty` on a terminal, `Json` elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// One line for people.
    Pretty,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_filter: "info".to_owned(),
            log_format: LogFormat::Auto,
            service_name: "holdfast".to_owned(),
            otlp_endpoint: None,
            sample_ratio: 0.01,
            trust_caller: true,
            queue_spans_max: 2048,
            batch_spans_max: 512,
            batch_delay: Duration::from_secs(1),
            export_timeout: Duration::from_secs(3),
            flush_timeout: Duration::from_secs(5),
        }
    }
}

fn directives(text: &str, _: &()) -> garde::Result {
    crate::logs::parse(text)
        .map(drop)
        .map_err(|_| garde::Error::new("must be log directives such as info,sqlx=warn"))
}

fn http_url(text: &str, _: &()) -> garde::Result {
    let host = text
        .parse::<http::Uri>()
        .ok()
        .filter(|uri| uri.scheme() == Some(&http::uri::Scheme::HTTP));
    // No TLS: a collector stands in the cluster or beside the process, and forwards from there.
    host.map(drop)
        .ok_or_else(|| garde::Error::new("must be an address such as http://collector:4317"))
}

fn between_1ms_and_1min(time: &Duration, _: &()) -> garde::Result {
    let allowed = Duration::from_millis(1)..=Duration::from_secs(60);
    if allowed.contains(time) {
        Ok(())
    } else {
        Err(garde::Error::new("must be from 1ms to 1m"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_each_field_says_what_it_allows() {
        type Change = fn(&mut Config);
        let table: [(&str, Change); 6] = [
            ("log_filter: must be log directives", |config| {
                config.log_filter = "a=b=c".to_owned()
            }),
            ("otlp_endpoint: must be an address", |config| {
                config.otlp_endpoint = Some("https://collector".to_owned())
            }),
            ("otlp_endpoint: must be an address", |config| {
                config.otlp_endpoint = Some("collector:4317".to_owned())
            }),
            ("sample_ratio: greater than 1", |config| {
                config.sample_ratio = 1.5
            }),
            ("queue_spans_max: lower than 1", |config| {
                config.queue_spans_max = 0
            }),
            ("flush_timeout: must be from 1ms", |config| {
                config.flush_timeout = Duration::ZERO
            }),
        ];

        assert!(Config::default().validate().is_ok());
        for (problem, change) in table {
            let mut config = Config::default();
            change(&mut config);
            let report = config.validate().expect_err(problem).to_string();
            assert!(report.contains(problem), "{report}");
        }
    }
}
