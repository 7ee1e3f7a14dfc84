//! What an event is, and what is said of those that came.

use garde::Validate;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::text;

/// Of one event, as JSON. With `events.buffered_max` it bounds the memory that waiting events take.
const PROPERTIES_BYTES_MAX: usize = 1024;

/// What a client has to tell.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEvents {
    /// 1 to 100.
    #[garde(length(min = 1, max = 100), dive)]
    pub events: Vec<NewEvent>,
}

/// One thing that happened.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// What happened, such as `product_viewed`.
    #[garde(length(chars, min = 1, max = 64), custom(text::line))]
    pub name: String,
    /// The product it is about.
    #[garde(skip)]
    pub product_id: Option<Uuid>,
    /// When it happened, by the client's clock; without it, when it arrives.
    #[garde(skip)]
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub at: Option<OffsetDateTime>,
    /// Whatever else there is to say, in at most 1024 bytes of JSON.
    #[garde(custom(few_bytes), custom(no_nul))]
    #[serde(default)]
    #[schema(value_type = Object)]
    pub properties: Map<String, Value>,
}

/// What became of the events of one request.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Received {
    /// Those that are going to be written, unless the process or its database dies first: the first ones of the list.
    pub accepted: usize,
    /// Those for which there was no room.
    pub dropped: usize,
}

/// An event as it waits to be written.
#[derive(Debug)]
pub struct Event {
    pub id: Uuid,
    pub at: OffsetDateTime,
    pub name: String,
    pub product_id: Option<Uuid>,
    pub properties: String,
}

impl From<NewEvent> for Event {
    fn from(new: NewEvent) -> Self {
        Self {
            id: Uuid::now_v7(),
            at: new.at.unwrap_or_else(OffsetDateTime::now_utc),
            name: new.name,
            product_id: new.product_id,
            properties: json(&new.properties),
        }
    }
}

fn json(properties: &Map<String, Value>) -> String {
    serde_json::to_string(properties).expect("what was read from JSON can be written as JSON")
}

fn few_bytes(properties: &Map<String, Value>, (): &()) -> garde::Result {
    if json(properties).len() <= PROPERTIES_BYTES_MAX {
        return Ok(());
    }
    Err(garde::Error::new("must be at most 1024 bytes of JSON"))
}

/// Postgres refuses it, and with it the whole batch.
fn no_nul(properties: &Map<String, Value>, (): &()) -> garde::Result {
    let has_nul = properties
        .iter()
        .any(|(key, value)| key.contains('\0') || holds_nul(value));
    if has_nul {
        return Err(garde::Error::new("must not contain the character NUL"));
    }
    Ok(())
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
