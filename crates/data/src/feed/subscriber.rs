//! One client of the hub.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::hub::Hub;
use super::message::Message;
use super::place::{Position, Token};
use super::queue::{Item, Queue, TooSlow};
use super::topic::Interest;

/// Hears what it has joined for, until it is dropped.
pub struct Subscriber {
    hub: Hub,
    id: u64,
    queue: Arc<Queue>,
    parts: Vec<Part>,
    /// What was missed, which comes before all that waits in the queue.
    missed: VecDeque<Item>,
}

/// One of its topics.
struct Part {
    topic: usize,
    interest: Interest,
    /// How far it has come; none before the process knows where the topic stands.
    position: Option<Position>,
}

/// Something for the client.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// It has happened.
    Message {
        /// The topic's name.
        topic: &'static str,
        /// What.
        message: Arc<Message>,
        /// Whether it happened before the client came.
        was_missed: bool,
    },
    /// Of this topic it has missed what cannot be told any more: it has to fetch the present state, and goes on from here.
    Refetch {
        /// The topic's name.
        topic: &'static str,
    },
}

impl Subscriber {
    pub(super) fn new(hub: Hub, id: u64, queue: Arc<Queue>) -> Self {
        Self {
            hub,
            id,
            queue,
            parts: Vec::new(),
            missed: VecDeque::new(),
        }
    }

    pub(super) fn place(&self) -> (u64, &Arc<Queue>) {
        (self.id, &self.queue)
    }

    pub(super) fn add(&mut self, topic: usize, interest: Interest, position: Option<Position>) {
        self.parts.push(Part {
            topic,
            interest,
            position,
        });
    }

    /// Goes on after `since` with what was `missed`.
    pub(super) fn resume(&mut self, topic: usize, since: Position, missed: Vec<Arc<Message>>) {
        if let Some(part) = part(&mut self.parts, topic) {
            part.position = Some(since);
        }
        let missed = missed.into_iter();
        let missed = missed.map(|message| Item::Message(topic, message));
        self.missed.extend(missed);
    }

    /// Goes on from where it has joined, and is told that there was more. Before that is known, it is told when it is.
    pub(super) fn refetch(&mut self, topic: usize) {
        if let Some(Part {
            position: Some(newest),
            ..
        }) = part(&mut self.parts, topic)
        {
            self.missed.push_back(Item::Refetch(topic, *newest));
        }
    }

    /// The next thing for the client, if there is one.
    ///
    /// # Errors
    /// [`TooSlow`] once more has waited than may.
    pub fn try_next(&mut self) -> Result<Option<Delivery>, TooSlow> {
        loop {
            let missed = self.missed.pop_front();
            let was_missed = missed.is_some();
            let item = match missed {
                Some(item) => Some(item),
                None => self.queue.pop()?,
            };
            let Some(item) = item else { return Ok(None) };
            if let Some(delivery) = self.take(item, was_missed) {
                return Ok(Some(delivery));
            }
        }
    }

    /// Waits until there may be something, or the client is cut off. Nothing is lost when it is not waited for to the end.
    pub async fn filled(&self) {
        if self.missed.is_empty() {
            self.queue.filled().await;
        }
    }

    /// Waits until the client is cut off, as it does not take what waits for it. Only one may wait for that.
    pub fn cut(&self) -> impl Future<Output = ()> + Send + use<> {
        let queue = Arc::clone(&self.queue);
        async move { queue.cut().await }
    }

    /// How far the client is, once it has what was delivered. Empty before anything is known.
    pub fn token(&self) -> String {
        let known = self.parts.iter().filter_map(|part| {
            let topic = self.hub.topic(part.topic);
            Some((topic.name, part.position?))
        });
        Token::write(known)
    }

    /// Goes past what was none of the client's, so that its token does not grow old while nothing comes for it; whether there
    /// was any.
    pub fn catch_up(&mut self) -> bool {
        let mut has_moved = false;
        if self.missed.is_empty() {
            for part in &mut self.parts {
                let topic = self.hub.topic(part.topic);
                let stands = topic.position_of(&self.queue);
                if let Some(stands) = stands
                    && part.position.is_some_and(|at| is_before(at, stands))
                {
                    part.position = Some(stands);
                    has_moved = true;
                }
            }
        }
        has_moved
    }

    /// None for what the client has: it may have come farther in another process, or be told the same from two sides.
    fn take(&mut self, item: Item, was_missed: bool) -> Option<Delivery> {
        match item {
            Item::Message(topic, message) => {
                let part = part(&mut self.parts, topic)?;
                let is_new = part
                    .position
                    .is_none_or(|at| is_before(at, message.position));
                if !is_new {
                    return None;
                }
                part.position = Some(message.position);
                let topic = self.hub.topic(topic).name;
                Some(Delivery::Message {
                    topic,
                    message,
                    was_missed,
                })
            }
            Item::Refetch(topic, newest) => {
                part(&mut self.parts, topic)?.position = Some(newest);
                let topic = self.hub.topic(topic).name;
                Some(Delivery::Refetch { topic })
            }
        }
    }
}

/// Whether there is anything between. Of two epochs nothing is known.
fn is_before(at: Position, other: Position) -> bool {
    at.epoch != other.epoch || at.offset < other.offset
}

fn part(parts: &mut [Part], topic: usize) -> Option<&mut Part> {
    parts.iter_mut().find(|part| part.topic == topic)
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        for part in &self.parts {
            self.hub.topic(part.topic).leave(self.id, part.interest);
        }
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("id", &self.id).finish()
    }
}
