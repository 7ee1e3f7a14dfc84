//! What one process hears of the feed, and deals out to its clients: one subscription per topic, however many they are.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::inbox::{Inbox, Next};
use super::message::Message;
use super::metrics::Metrics;
use super::place::{Offset, Position, Token};
use super::queue::Queue;
use super::stream::Feed;
use super::subscriber::Subscriber;
use super::topic::{Dealt, Interest, Joined, Missed, Topic};
use crate::{Error, jitter};

/// The pause before the stream is asked again for what it did not tell.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// See the module. A clone is the same hub.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    feed: Feed,
    topics: Vec<Topic>,
    subscribers: AtomicU64,
    resumes: Semaphore,
    metrics: Metrics,
}

/// How a client comes.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The topics that it wants, and what of each. A name that the hub does not know is a bug.
    pub wanted: &'a [(&'static str, Interest)],
    /// How far it had come, if it was here before.
    pub resume: Option<&'a Token>,
    /// Bytes that may wait for it.
    pub queue_bytes_max: usize,
    /// Until when it can be found out what it has missed.
    pub deadline: Instant,
}

impl Hub {
    /// A hub that hears nothing before [`Hub::run`] runs.
    pub fn new(feed: &Feed, topics: &[&'static str], registry: &mut Registry) -> Self {
        let config = feed.config();
        let topic = |(number, name): (usize, &&'static str)| {
            let inbox = Inbox::new(config.inbox_bytes_max);
            Topic::new(number, name, inbox, config.ring_bytes_max)
        };
        Self(Arc::new(Inner {
            topics: topics.iter().enumerate().map(topic).collect(),
            subscribers: AtomicU64::new(0),
            resumes: Semaphore::new(config.resumes_max),
            metrics: Metrics::register(registry),
            feed: feed.clone(),
        }))
    }

    /// Deals out what is published until `stop`. Spawn it once.
    pub async fn run(self, stop: CancellationToken) {
        for topic in &self.0.topics {
            let channel = self.0.feed.channel(topic.name);
            let listener = Arc::clone(&topic.inbox);
            self.0.feed.redis().listen(channel, listener);
        }
        let following = join_all(self.0.topics.iter().map(|topic| self.0.follow(topic)));
        stop.run_until_cancelled(following).await;
    }

    /// Whether every topic's messages come as they are published, and not later.
    pub fn is_live(&self) -> bool {
        let mut topics = self.0.topics.iter();
        topics.all(|topic| topic.inbox.is_subscribed() && topic.position().is_some())
    }

    /// Lets a client hear what it wants, after what it has missed. What cannot be told any more is said by
    /// [`super::Delivery::Refetch`]. Asks Redis only for what this process no longer has.
    pub async fn join(&self, arrival: Arrival<'_>) -> Subscriber {
        let id = self.0.subscribers.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::new(Queue::new(arrival.queue_bytes_max));
        let mut subscriber = Subscriber::new(self.clone(), id, queue);
        for (name, interest) in arrival.wanted {
            let topic = self.0.topics.iter().find(|topic| topic.name == *name);
            let topic = topic.expect("topics are named by the one list of them");
            self.join_one(&mut subscriber, topic, *interest, &arrival)
                .await;
        }
        subscriber
    }

    async fn join_one(
        &self,
        subscriber: &mut Subscriber,
        topic: &Topic,
        interest: Interest,
        arrival: &Arrival<'_>,
    ) {
        let since = arrival.resume.and_then(|token| token.of(topic.name));
        if since.is_some() {
            let _ = timeout_at(arrival.deadline, topic.known()).await;
        }
        let (id, queue) = subscriber.place();
        let Joined { newest, missed } = topic.join(id, queue, interest, since);
        subscriber.add(topic.number, interest, newest);
        if arrival.resume.is_none() {
            return;
        }
        let missed = match (missed, since) {
            (Missed::Here(missed), _) => Some(missed),
            (Missed::Before { floor, rest }, Some(since)) => {
                let older = self.0.older(topic, since, floor);
                let older = timeout_at(arrival.deadline, older).await.ok().flatten();
                older.map(|older| {
                    let wanted = older.into_iter().filter(|message| interest.wants(message));
                    wanted.chain(rest).collect::<Vec<_>>()
                })
            }
            (Missed::Before { .. } | Missed::Unknown, _) => None,
        };
        let fits = |missed: &Vec<Arc<Message>>| {
            let bytes = missed.iter().map(|message| message.bytes());
            bytes.sum::<usize>() <= arrival.queue_bytes_max
        };
        match (missed.filter(fits), since) {
            (Some(missed), Some(since)) => subscriber.resume(topic.number, since, missed),
            _ => {
                self.0.metrics.refetch(topic.name, 1);
                subscriber.refetch(topic.number);
            }
        }
    }

    pub(super) fn topic(&self, number: usize) -> &Topic {
        &self.0.topics[number]
    }
}

impl Inner {
    async fn follow(&self, topic: &Topic) {
        loop {
            let is_subscribed = topic.inbox.is_subscribed();
            self.metrics.set_subscribed(topic.name, is_subscribed);
            match topic.inbox.next() {
                Next::Wait => topic.inbox.filled().await,
                Next::Repair => self.repair(topic).await,
                Next::Deal(messages) => self.deal(topic, messages).await,
            }
        }
    }

    async fn deal(&self, topic: &Topic, messages: VecDeque<Message>) {
        self.metrics.came(topic.name, messages.len());
        for message in messages {
            if topic.deal([Arc::new(message)]) == Dealt::Gap {
                return topic.inbox.missed();
            }
            // Each may wake thousands of clients, who want their turn.
            consume_budget().await;
        }
    }

    /// Deals out what was missed. What cannot be had any more is a new beginning for everybody.
    async fn repair(&self, topic: &Topic) {
        match self.look(topic).await {
            Ok(()) => self.metrics.repaired(topic.name),
            Err(error) => {
                tracing::debug!(topic = topic.name, %error, "what was missed cannot be read yet");
                topic.inbox.missed();
                sleep(jitter::up_to(RETRY_PAUSE)).await;
            }
        }
    }

    async fn look(&self, topic: &Topic) -> Result<(), Error> {
        if let Some(position) = topic.position()
            && let Some(missed) = self.feed.after(topic.name, position, None).await?
            && topic.deal(missed) == Dealt::All
        {
            return Ok(());
        }
        let (newest, end) = self.feed.end(topic.name).await?;
        let told = topic.reset(newest, end);
        self.metrics.refetch(topic.name, told);
        if told > 0 {
            tracing::warn!(
                topic = topic.name,
                clients = told,
                "messages are lost: clients fetch anew"
            );
        }
        Ok(())
    }

    /// What came after `since` and is not here any more. None when it cannot be had, or too many ask.
    async fn older(
        &self,
        topic: &Topic,
        since: Position,
        floor: Offset,
    ) -> Option<Vec<Arc<Message>>> {
        let _turn = self.resumes.try_acquire().ok()?;
        let found = self.feed.after(topic.name, since, Some(floor)).await;
        let mut found = found.ok()??;
        // The last page may go on with what is here.
        found.retain(|message| message.offset() <= floor);
        Some(found)
    }
}
