//! What others are to hear of: events written in the transaction in which they happen, so that there is no event without its change
//! and no change without its event, and delivered by a relay afterwards.
//!
//! At least once: a relay that dies between delivering and forgetting leaves the next one to deliver again, so each event has an id that
//! stays. In order for each key, where whoever emits holds a lock on what the key names until he commits.

mod config;
mod feed;
#[cfg(any(test, feature = "kafka"))]
mod kafka;
mod metrics;
mod relay;
mod store;

use std::error::Error as StdError;

use serde::ser::Error as _;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::config::Config;
pub use self::relay::Relay;
use crate::Error;
use crate::feed::Feed;
use crate::postgres::{Place, Tx};

/// Something that happens with a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// Where it goes.
    pub topic: &'static str,
    /// What it is about.
    pub key: Uuid,
    /// What happened, without anything that is not for everybody who may read the topic.
    pub body: Value,
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The same however often it is delivered.
    pub id: Uuid,
    /// Where it goes.
    pub topic: String,
    /// What it is about.
    pub key: Uuid,
    /// What happened.
    pub body: Value,
    /// When, by the server's clock.
    pub at: OffsetDateTime,
}

/// Why events could not be delivered: any error.
pub type Undelivered = Box<dyn StdError + Send + Sync>;

/// Where events are delivered to.
///
/// For SQS: `SendMessageBatch` to a FIFO queue, by tens, with `key` as the group's id and `id` as the deduplication's. For NATS: publish to
/// JetStream under `topic.key` with `id` as `Nats-Msg-Id`, and await each acknowledgement.
pub trait Sink: Send + Sync + 'static {
    /// Delivers events in their order, and returns when they are safe there. After an error, or when it takes too long, all of them are
    /// delivered again. Called within a transaction, so it must not ask Postgres.
    fn deliver(&self, events: &[Event]) -> impl Future<Output = Result<(), Undelivered>> + Send;
}

/// All that events are delivered to: the feed, and Kafka where it is built in and set up.
///
/// # Errors
/// The settings of Kafka are refused.
pub fn sink(feed: Feed, config: &Config) -> Result<impl Sink + use<>, Undelivered> {
    #[cfg(any(test, feature = "kafka"))]
    let feed = {
        let patience = config.deliver_timeout;
        let kafka = config.kafka.as_ref();
        let kafka = kafka.map(|config| kafka::Kafka::new(config, patience));
        (feed, kafka.transpose()?)
    };
    #[cfg(not(any(test, feature = "kafka")))]
    let Config { .. } = config;
    Ok(feed)
}

/// To the first, and then to the second if there is one. When that fails, the first has them twice.
impl<A: Sink, B: Sink> Sink for (A, Option<B>) {
    async fn deliver(&self, events: &[Event]) -> Result<(), Undelivered> {
        let (first, second) = self;
        first.deliver(events).await?;
        match second {
            Some(second) => second.deliver(events).await,
            None => Ok(()),
        }
    }
}

/// Bytes of a body as JSON, which every sink can take.
pub const BODY_BYTES_MAX: usize = 8 * 1024;

/// Has events delivered, if the transaction commits. One statement, whose size the caller bounds.
///
/// # Errors
/// `NotAtHome` on another cluster; `Encoding` for a body that is too large; as any statement of a transaction.
pub async fn emit<P: Place>(
    tx: &mut Tx<P>,
    events: impl IntoIterator<Item = NewEvent>,
) -> Result<(), Error> {
    tx.check_at_home()?;
    let events: Vec<NewEvent> = events.into_iter().collect();
    if events.is_empty() {
        return Ok(());
    }
    // One that no sink takes would hold up all that come after it.
    if events
        .iter()
        .any(|event| event.body.to_string().len() > BODY_BYTES_MAX)
    {
        let error = serde_json::Error::custom(format_args!(
            "the body of an event has at most {BODY_BYTES_MAX} bytes"
        ));
        return Err(Error::encoding(error));
    }
    store::insert(tx, &events).await
}
