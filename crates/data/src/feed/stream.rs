//! A topic in Redis: a stream of the latest messages, and the epoch in which their places mean anything.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::{ErrorKind, RedisError, Script};
use tokio::time::Instant;
use uuid::Uuid;

use super::config::Config;
use super::message::{Message, epoch};
use super::place::{Offset, Position};
use crate::Error;
use crate::redis::Redis;

/// Entries that are read at once: not so many that other answers wait long behind them on the shared connection.
const PAGE: usize = 500;
/// How long reading a page may take, beside what `redis.command_timeout` says.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Something that has happened, to be told to whom it concerns.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Its own id. Whoever publishes an event again because it may not have been gives it the same one.
    pub id: Uuid,
    /// Whose it is, or what it is about: what [`super::Interest::Key`] selects by.
    pub key: Uuid,
    /// JSON.
    pub body: &'a str,
}

/// What is published, and read again. A clone is cheap.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

struct Inner {
    redis: Redis,
    config: Config,
    publish: Script,
    read: Script,
}

/// Some of a topic.
struct Page {
    newest: Position,
    /// None where an entry is none of ours.
    messages: Vec<Option<Arc<Message>>>,
}

impl Feed {
    /// A feed in `redis`, under its key prefix.
    pub fn new(config: &Config, redis: Redis) -> Self {
        Self(Arc::new(Inner {
            redis,
            config: config.clone(),
            publish: Script::new(include_str!("publish.lua")),
            read: Script::new(include_str!("read.lua")),
        }))
    }

    /// Tells every process of `events`, in this order, and keeps them for whoever comes back later. One round trip. When it fails
    /// they may have been told nevertheless, and may be told again.
    ///
    /// # Errors
    /// As [`Redis::call`]; `Command` when a body is larger than `feed.event_bytes_max`.
    pub async fn publish(
        &self,
        topic: &str,
        events: &[Event<'_>],
        deadline: Instant,
    ) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        let bytes_max = self.0.config.event_bytes_max;
        if events.iter().any(|event| event.body.len() > bytes_max) {
            let refused = RedisError::from((ErrorKind::Client, "an event is too large"));
            return Err(Error::Command(Arc::new(refused)));
        }
        let mut call = self.0.publish.key(self.stream(topic));
        call.key(self.epoch(topic))
            .arg(self.channel(topic))
            .arg(self.0.config.stream_max)
            .arg(fresh_epoch());
        for event in events {
            call.arg(event.id.to_string())
                .arg(event.key.to_string())
                .arg(event.body);
        }
        self.0.redis.invoke::<()>(&call, deadline).await
    }

    /// All that came after `since`, or as much as there is up to `until`. None when some of it cannot be had any more, or it is more
    /// than `feed.repair_max`.
    pub(super) async fn after(
        &self,
        topic: &str,
        since: Position,
        until: Option<Offset>,
    ) -> Result<Option<Vec<Arc<Message>>>, Error> {
        let mut at = since.offset;
        let mut found = Vec::new();
        while found.len() <= self.0.config.repair_max {
            let page = self.page(topic, Some(at), PAGE).await?;
            if page.newest.epoch != since.epoch {
                return Ok(None);
            }
            let is_last = page.messages.len() < PAGE;
            for message in page.messages {
                let Some(message) = message else {
                    return Ok(None);
                };
                if message.offset() == at {
                    continue;
                }
                if message.previous != at {
                    return Ok(None);
                }
                at = message.offset();
                found.push(message);
            }
            if until.is_some_and(|until| at >= until) {
                return Ok(Some(found));
            }
            if is_last {
                // After a failover the stream may end before what was already told.
                return Ok((at == page.newest.offset).then_some(found));
            }
        }
        Ok(None)
    }

    /// The end of the topic, and its newest messages as far as they follow one another.
    pub(super) async fn end(&self, topic: &str) -> Result<(Position, Vec<Arc<Message>>), Error> {
        let entries = self.0.config.repair_max.min(PAGE);
        let page = self.page(topic, None, entries).await?;
        let mut end: Vec<Arc<Message>> = Vec::with_capacity(page.messages.len());
        for message in page.messages {
            let Some(message) = message else {
                end.clear();
                continue;
            };
            if end
                .last()
                .is_some_and(|last| last.offset() != message.previous)
            {
                end.clear();
            }
            end.push(message);
        }
        Ok((page.newest, end))
    }

    async fn page(&self, topic: &str, from: Option<Offset>, entries: usize) -> Result<Page, Error> {
        let mut call = self.0.read.key(self.stream(topic));
        call.key(self.epoch(topic))
            .arg(from.map_or_else(String::new, |from| from.to_string()))
            .arg(entries)
            .arg(fresh_epoch());
        let deadline = Instant::now() + READ_WITHIN;
        let fields: Vec<String> = self.0.redis.invoke(&call, deadline).await?;
        page(&fields).ok_or_else(|| {
            let foreign = RedisError::from((ErrorKind::Client, "a topic is none of ours"));
            Error::Command(Arc::new(foreign))
        })
    }

    pub(super) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(super) fn redis(&self) -> &Redis {
        &self.0.redis
    }

    /// Where a topic's messages are published.
    pub(super) fn channel(&self, topic: &str) -> String {
        self.stream(topic)
    }

    fn stream(&self, topic: &str) -> String {
        self.0.redis.key(&["feed", topic])
    }

    fn epoch(&self, topic: &str) -> String {
        self.0.redis.key(&["feed-epoch", topic])
    }
}

fn page(fields: &[String]) -> Option<Page> {
    let [epoch_field, newest, entries @ ..] = fields else {
        return None;
    };
    let epoch = epoch(epoch_field)?;
    let offset = Offset::parse(newest)?;
    let message = |fields: &[String]| {
        let fields: &[String; 5] = fields.try_into().ok()?;
        Message::from_fields(epoch, fields.each_ref().map(String::as_str)).map(Arc::new)
    };
    Some(Page {
        newest: Position { epoch, offset },
        messages: entries.chunks(5).map(message).collect(),
    })
}

/// One that no other is.
fn fresh_epoch() -> String {
    format!("{:x}", fastrand::u64(..))
}
