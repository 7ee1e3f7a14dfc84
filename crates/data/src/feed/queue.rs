//! What waits for one client: references to messages that all share, bounded by the bytes that are to be sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::message::Message;
use super::place::Position;

/// Something for a client. Topics are numbers, in the order of the hub.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Message(usize, Arc<Message>),
    /// It has missed something that cannot be had any more, and from here on goes on.
    Refetch(usize, Position),
}

/// As many messages wait as may: the client does not read fast enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is too slow")]
pub struct TooSlow;

pub(super) struct Queue {
    bytes_max: usize,
    waiting: Mutex<Waiting>,
    /// For whoever waits for items. A word goes to one waiter only, so there is another for whoever waits for the end.
    filled: Notify,
    cut: Notify,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
    is_cut: bool,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            waiting: Mutex::default(),
            filled: Notify::new(),
            cut: Notify::new(),
        }
    }

    /// Waits for nobody: what there is no room for cuts the client off.
    pub(super) fn push(&self, item: Item) {
        let bytes = bytes(&item);
        let mut waiting = self.lock();
        if waiting.is_cut {
            return;
        }
        if waiting.bytes + bytes > self.bytes_max {
            waiting.is_cut = true;
            waiting.items = VecDeque::new();
            self.cut.notify_one();
        } else {
            waiting.bytes += bytes;
            waiting.items.push_back(item);
        }
        drop(waiting);
        self.filled.notify_one();
    }

    pub(super) fn pop(&self) -> Result<Option<Item>, TooSlow> {
        let mut waiting = self.lock();
        if waiting.is_cut {
            return Err(TooSlow);
        }
        let item = waiting.items.pop_front();
        waiting.bytes -= item.as_ref().map_or(0, bytes);
        // An hour may pass until there is more than one again.
        if waiting.items.is_empty() && waiting.items.capacity() > KEPT_ITEMS {
            waiting.items = VecDeque::new();
        }
        Ok(item)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    /// Waits for the next item, or until the client is cut off.
    pub(super) async fn filled(&self) {
        while !self.has_news() {
            self.filled.notified().await;
        }
    }

    fn has_news(&self) -> bool {
        let waiting = self.lock();
        waiting.is_cut || !waiting.items.is_empty()
    }

    /// Waits until the client is cut off. Only one may wait for it.
    pub(super) async fn cut(&self) {
        while !self.lock().is_cut {
            self.cut.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for items that an idle queue keeps.
const KEPT_ITEMS: usize = 8;

fn bytes(item: &Item) -> usize {
    match item {
        Item::Message(_, message) => message.bytes(),
        Item::Refetch(..) => size_of::<Item>(),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;
    use uuid::Uuid;

    use super::super::place::Offset;
    use super::*;

    fn item(bytes: usize) -> Item {
        let offset = Offset { ms: 1, number: 0 };
        let message = Message {
            id: Uuid::nil(),
            key: Uuid::nil(),
            body: "x".repeat(bytes).into(),
            position: Position { epoch: 1, offset },
            previous: offset,
        };
        Item::Message(0, Arc::new(message))
    }

    #[test]
    fn what_is_taken_makes_room_and_what_has_none_cuts() {
        let queue = Queue::new(1000);
        for _ in 0..10 {
            queue.push(item(500));
            assert!(queue.pop().unwrap().is_some());
        }
        assert!(queue.pop().unwrap().is_none());

        queue.push(item(500));
        queue.push(item(500));

        assert!(matches!(queue.pop(), Err(TooSlow)));
        assert!(queue.cut().now_or_never().is_some());
        assert!(queue.filled().now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_waits_for_the_end_takes_no_word_from_who_waits_for_items() {
        let queue = Queue::new(1000);
        let mut cut = pin!(queue.cut());
        assert!(cut.as_mut().now_or_never().is_none());
        let mut filled = pin!(queue.filled());
        assert!(filled.as_mut().now_or_never().is_none());

        queue.push(item(500));
        assert!(filled.now_or_never().is_some());
        queue.push(item(500));

        assert!(cut.now_or_never().is_some());
    }
}
