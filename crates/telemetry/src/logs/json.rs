//! One JSON object a line: `timestamp`, `level`, `message`, `target`, the event's fields, then those of its
//! spans, outermost first. Written straight into the line's buffer; span fields are formatted once a span.

use std::fmt::{self, Write};

use time::OffsetDateTime;
use tracing::{Event, Subscriber, span::Record};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    registry::LookupSpan,
};

use super::fields::{Escaped, Fields, Value};

pub(crate) struct Json;

/// Span fields, each with a comma before it, ready to be spliced into an object.
pub(crate) struct JsonFields;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for Json {
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        writer.write_str("{\"timestamp\":\"")?;
        write_timestamp(&mut writer, OffsetDateTime::now_utc())?;
        write!(
            writer,
            "\",\"level\":\"{}\",\"target\":\"{}\"",
            meta.level(),
            meta.target()
        )?;
        JsonFields.format_fields(writer.by_ref(), event)?;
        for span in ctx
            .event_scope()
            .into_iter()
            .flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            if let Some(fields) = span.extensions().get::<FormattedFields<JsonFields>>() {
                writer.write_str(fields)?;
            }
        }
        writer.write_str("}\n")
    }
}

impl<'w> FormatFields<'w> for JsonFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Fields::new(|name, value| write_field(&mut writer, name, &value));
        fields.record(&mut visitor);
        visitor.finish()
    }

    /// Each field brings its comma, so nothing stands between what a span had and what it was given later.
    fn add_fields(
        &self,
        current: &'w mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        self.format_fields(current.as_writer(), fields)
    }
}

/// RFC 3339 in microseconds, always of the same length, so that lines sort as text.
fn write_timestamp(writer: &mut Writer<'_>, now: OffsetDateTime) -> fmt::Result {
    let (year, month, day) = now.to_calendar_date();
    let (hour, minute, second, micro) = now.to_hms_micro();
    write!(
        writer,
        "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z",
        u8::from(month)
    )
}

fn write_field(writer: &mut Writer<'_>, name: &str, value: &Value<'_>) -> fmt::Result {
    write!(writer, ",\"{name}\":")?;
    match value {
        Value::Bool(value) => write!(writer, "{value}"),
        Value::I64(value) => write!(writer, "{value}"),
        Value::U64(value) => write!(writer, "{value}"),
        Value::F64(value) if value.is_finite() => write!(writer, "{value}"),
        // JSON has no number for these.
        Value::F64(value) => write!(writer, "\"{value}\""),
        Value::Text(text) => quoted(writer, format_args!("{text}")),
        Value::Debug(value) => quoted(writer, format_args!("{value:?}")),
    }
}

fn quoted(writer: &mut Writer<'_>, text: fmt::Arguments<'_>) -> fmt::Result {
    writer.write_char('"')?;
    Escaped(writer).write_fmt(text)?;
    writer.write_char('"')
}
