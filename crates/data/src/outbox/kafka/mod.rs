//! Kafka as a sink, in builds with the feature `kafka`: it compiles librdkafka, which takes a C compiler and a minute.
//!
//! The producer is idempotent: what it sends again by itself is there once, and in order. What the relay delivers again is there
//! twice, with the same `event-id`. Without OpenSSL, which the image does not hold, the way to the brokers is plain; where it must
//! not be, a sidecar encrypts it, or `rdkafka` is built with its feature `ssl`.

#[cfg(test)]
mod tests;

use std::time::Duration;

use futures::future::try_join_all;
use garde::Validate;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer, PurgeConfig};
use serde::{Deserialize, Serialize};

use super::{Event, Sink, Undelivered};

/// The settings under `outbox.kafka`.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Some brokers by which to find all, `host:port`, separated by commas.
    #[garde(length(bytes, min = 3, max = 4096))]
    pub brokers: String,
    /// What stands before the name of each topic.
    #[serde(default)]
    #[garde(length(bytes, max = 128))]
    pub topic_prefix: String,
}

/// A producer for all topics. A clone is the same.
#[derive(Clone)]
pub struct Kafka {
    producer: FutureProducer,
    topic_prefix: String,
}

impl Kafka {
    /// Connects in the background. What is not there within `patience` was not delivered.
    ///
    /// # Errors
    /// librdkafka refuses its settings.
    pub fn new(config: &Config, patience: Duration) -> Result<Self, KafkaError> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &config.brokers)
            .set("client.id", "holdfast")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", patience.as_millis().to_string())
            .create()?;
        Ok(Self {
            producer,
            topic_prefix: config.topic_prefix.clone(),
        })
    }

    fn send(
        &self,
        event: &Event,
    ) -> Result<impl Future<Output = Result<(), Undelivered>> + use<>, KafkaError> {
        let topic = format!("{}{}", self.topic_prefix, event.topic);
        let (key, body) = (event.key.to_string(), event.body.to_string());
        let record = FutureRecord::to(&topic)
            .key(&key)
            .payload(&body)
            .timestamp(milliseconds(event))
            .headers(OwnedHeaders::new().insert(Header {
                key: "event-id",
                value: Some(&event.id.to_string()),
            }));
        let sent = self.producer.send_result(record);
        let sent = sent.map_err(|(error, _)| error)?;
        Ok(async move {
            match sent.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err((error, _))) => Err(error.into()),
                Err(canceled) => Err(canceled.into()),
            }
        })
    }
}

fn milliseconds(event: &Event) -> i64 {
    let nanoseconds = event.at.unix_timestamp_nanos();
    i64::try_from(nanoseconds / 1_000_000).unwrap_or(i64::MAX)
}

impl Sink for Kafka {
    async fn deliver(&self, events: &[Event]) -> Result<(), Undelivered> {
        let rest = Rest(&self.producer);
        let sent: Result<Vec<_>, KafkaError> =
            events.iter().map(|event| self.send(event)).collect();
        try_join_all(sent?).await?;
        std::mem::forget(rest);
        Ok(())
    }
}

/// What has not been delivered when somebody gives up. It is not to come later: behind what another process delivers by then, it would
/// be out of order.
struct Rest<'a>(&'a FutureProducer);

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.purge(PurgeConfig::default().queue().inflight());
    }
}
