//! The feed as a sink: topics are streams in Redis, which every process follows.

use tokio::time::Instant;

use super::{Event, Sink, Undelivered};
use crate::feed::{self, Feed};

impl Sink for Feed {
    /// One round trip for each run of events of one topic.
    async fn deliver(&self, events: &[Event]) -> Result<(), Undelivered> {
        // The relay's own limit comes sooner.
        let deadline = Instant::now() + std::time::Duration::from_secs(60);
        for run in events.chunk_by(|one, next| one.topic == next.topic) {
            let bodies: Vec<String> = run.iter().map(|event| event.body.to_string()).collect();
            let told: Vec<_> = run
                .iter()
                .zip(&bodies)
                .map(|(event, body)| feed::Event {
                    id: event.id,
                    key: event.key,
                    body,
                })
                .collect();
            self.publish(&run[0].topic, &told, deadline).await?;
        }
        Ok(())
    }
}
