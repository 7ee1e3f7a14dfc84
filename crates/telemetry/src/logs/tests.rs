use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tracing::{Subscriber, subscriber::with_default};
use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt};

use super::*;

/// Keeps what is written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn json(&self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn logging(format: LogFormat, filter: &str) -> (impl Subscriber + Send + Sync, LogLevel, Lines) {
    let lines = Lines::default();
    let config = Config {
        log_format: format,
        log_filter: filter.to_owned(),
        ..Config::default()
    };
    let (layer, level) = layer(&config, lines.clone()).unwrap();
    (tracing_subscriber::registry().with(layer), level, lines)
}

#[test]
fn a_json_line_holds_the_event_and_the_fields_of_its_spans() {
    let (subscriber, _, lines) = logging(LogFormat::Json, "info");

    with_default(subscriber, || {
        let request = tracing::info_span!(
            "request",
            trace_id = "abc",
            http.route = tracing::field::Empty
        );
        let _in = request.enter();
        request.record("http.route", "/v1/products/{id}");
        let _query = tracing::info_span!("query", rows = 3).entered();
        tracing::warn!(target: "shop", ratio = 0.5, odd = f64::NAN, order.id = 7_u64, ok = true, r#type = "x", "sold {}", "out");
    });

    let line = &lines.json()[0];
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["target"], "shop");
    assert_eq!(line["message"], "sold out");
    assert_eq!(
        (&line["order.id"], &line["ratio"], &line["ok"]),
        (&7.into(), &0.5.into(), &true.into())
    );
    assert_eq!((&line["odd"], &line["type"]), (&"NaN".into(), &"x".into()));
    assert_eq!(
        (&line["trace_id"], &line["http.route"]),
        (&"abc".into(), &"/v1/products/{id}".into())
    );
    assert_eq!(line["rows"], 3);
    let timestamp = line["timestamp"].as_str().unwrap();
    assert!(
        timestamp.starts_with("20") && timestamp.ends_with('Z'),
        "{timestamp}"
    );
}

#[test]
fn no_value_can_forge_a_line_or_steer_the_terminal() {
    let evil = "a\r\n{\"level\":\"ERROR\"}\u{2028}\u{85}\x1b[2J\0\"\\ é";

    for format in [LogFormat::Json, LogFormat::Pretty] {
        let (subscriber, _, lines) = logging(format, "info");
        with_default(subscriber, || {
            let _span = tracing::info_span!("request", text = evil, debug = ?evil).entered();
            tracing::info!(text2 = evil, display = %evil, debug2 = ?Some(evil), "{evil}");
        });

        let text = lines.text();
        let (line, rest) = text.split_once('\n').unwrap();
        assert_eq!(rest, "", "one event is one line: {text:?}");
        assert!(
            !line.chars().any(|c| c.is_control() || c == '\u{2028}'),
            "{line:?}"
        );
        if format == LogFormat::Json {
            let line = &lines.json()[0];
            assert_eq!(
                (&line["text"], &line["display"], &line["message"]),
                (&evil.into(), &evil.into(), &evil.into())
            );
        }
    }
}

#[test]
fn the_filter_changes_at_run_time_and_a_bad_one_is_refused() {
    let (subscriber, level, lines) = logging(LogFormat::Json, "warn");

    with_default(subscriber, || {
        tracing::debug!("before");
        level.set("debug").unwrap();
        tracing::debug!("after");
        assert!(level.set("no=such=filter").is_err());
        tracing::debug!("still");
        assert_eq!(level.get(), "debug");
    });

    let messages: Vec<_> = lines
        .json()
        .iter()
        .map(|line| line["message"].clone())
        .collect();
    assert_eq!(messages, ["after", "still"]);
}

#[test]
fn a_warning_names_its_request_even_when_only_warnings_are_logged() {
    let (subscriber, _, lines) = logging(LogFormat::Json, "warn");
    let config = Config {
        otlp_endpoint: Some("http://localhost".to_owned()),
        sample_ratio: 1.0,
        ..Config::default()
    };
    let incoming = crate::trace::Incoming::root(crate::trace::Sampling::new(&config));

    with_default(subscriber, || {
        crate::request_span!(incoming, request_id = "r1").in_scope(|| tracing::warn!("slow"));
    });

    let line = &lines.json()[0];
    assert_eq!(line["trace_id"], incoming.trace_id().to_string());
    assert_eq!(line["span_id"], incoming.span_id().to_string());
    assert_eq!(line["request_id"], "r1");
    assert_eq!(line.get("otel.kind"), None, "meant for the exporter");
}

#[test]
fn a_line_for_people_begins_with_time_level_target_and_message() {
    let (subscriber, _, lines) = logging(LogFormat::Pretty, "info");

    with_default(subscriber, || {
        let _span = tracing::info_span!("request", trace_id = "abc").entered();
        tracing::info!(target: "shop", amount = 7, "sold out");
    });

    let text = lines.text();
    let (_, after_time) = text.split_once(' ').unwrap();
    assert_eq!(after_time, " INFO shop sold out amount=7 trace_id=abc\n");
}
