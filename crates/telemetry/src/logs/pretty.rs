//! One line for people: time of day, level, message, then the fields of the event and of its spans, dimmed.

use std::fmt::{self, Write};

use time::OffsetDateTime;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    registry::LookupSpan,
};

use super::fields::{Escaped, Fields, Value};

pub(crate) struct Pretty;

pub(crate) struct PrettyFields;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, PrettyFields> for Pretty {
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, PrettyFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let (dim, plain) = if writer.has_ansi_escapes() {
            ("\x1b[2m", "\x1b[0m")
        } else {
            ("", "")
        };
        let (hour, minute, second, milli) = OffsetDateTime::now_utc().to_hms_milli();
        let colour = if dim.is_empty() {
            ""
        } else {
            colour(*meta.level())
        };
        write!(
            writer,
            "{dim}{hour:02}:{minute:02}:{second:02}.{milli:03}{plain} {colour}{:>5}{plain} {dim}{}{plain}",
            meta.level(),
            meta.target()
        )?;
        PrettyFields.format_fields(writer.by_ref(), event)?;
        writer.write_str(dim)?;
        for span in ctx
            .event_scope()
            .into_iter()
            .flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            if let Some(fields) = span.extensions().get::<FormattedFields<PrettyFields>>() {
                writer.write_str(fields)?;
            }
        }
        writeln!(writer, "{plain}")
    }
}

impl<'w> FormatFields<'w> for PrettyFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Fields::new(|name, value| write_field(&mut writer, name, &value));
        fields.record(&mut visitor);
        visitor.finish()
    }
}

fn write_field(writer: &mut Writer<'_>, name: &str, value: &Value<'_>) -> fmt::Result {
    writer.write_char(' ')?;
    if name != "message" {
        write!(writer, "{name}=")?;
    }
    let mut line = Escaped(writer);
    match value {
        Value::Bool(value) => write!(line, "{value}"),
        Value::I64(value) => write!(line, "{value}"),
        Value::U64(value) => write!(line, "{value}"),
        Value::F64(value) => write!(line, "{value}"),
        Value::Text(text) => line.write_str(text),
        Value::Debug(value) => write!(line, "{value:?}"),
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[34m",
    }
}
