//! Visits the fields of events and spans. Both formats differ only in how one field is written.

use std::fmt;

use tracing::field::{Field, Visit};

/// A value as `tracing` hands it over.
pub(crate) enum Value<'a> {
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(&'a str),
    Debug(&'a dyn fmt::Debug),
}

/// Hands every field to a function and keeps the first write error, which `Visit` has no way to return.
pub(crate) struct Fields<F> {
    write: F,
    result: fmt::Result,
}

impl<F: FnMut(&str, Value<'_>) -> fmt::Result> Fields<F> {
    pub(crate) fn new(write: F) -> Self {
        Self {
            write,
            result: Ok(()),
        }
    }

    pub(crate) fn finish(self) -> fmt::Result {
        self.result
    }

    fn add(&mut self, field: &Field, value: Value<'_>) {
        // `otel.kind` and its like are instructions to the exporter.
        if self.result.is_ok() && !field.name().starts_with("otel.") {
            self.result = (self.write)(field.name().trim_start_matches("r#"), value);
        }
    }
}

impl<F: FnMut(&str, Value<'_>) -> fmt::Result> Visit for Fields<F> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::I64(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::U64(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Value::F64(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::Text(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::Debug(value));
    }
}

/// Writes text so that it stays on its line: control characters and quotes are escaped as in JSON, on the fly.
pub(crate) struct Escaped<'a>(pub(crate) &'a mut dyn fmt::Write);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(needs_escape) {
            let (plain, tail) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut chars = tail.chars();
            if let Some(char) = chars.next() {
                self.escape(char)?;
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

impl Escaped<'_> {
    fn escape(&mut self, char: char) -> fmt::Result {
        match char {
            '"' => self.0.write_str("\\\""),
            '\\' => self.0.write_str("\\\\"),
            '\n' => self.0.write_str("\\n"),
            '\r' => self.0.write_str("\\r"),
            '\t' => self.0.write_str("\\t"),
            // Every character that needs an escape lies in the first Unicode plane.
            other => write!(self.0, "\\u{:04x}", u32::from(other)),
        }
    }
}

/// Quotes, backslashes, the control characters of both ranges (terminals obey them), and the two Unicode
/// line separators, at which some log viewers break lines.
fn needs_escape(char: char) -> bool {
    matches!(char, '"' | '\\' | '\u{2028}' | '\u{2029}') || char.is_control()
}
