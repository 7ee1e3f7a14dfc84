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
    changed: Notify,
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
            changed: Notify::new(),
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
        } else {
            waiting.bytes += bytes;
            waiting.items.push_back(item);
        }
        drop(waiting);
        self.changed.notify_one();
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
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until the client is cut off.
    pub(super) async fn cut(&self) {
        while !self.lock().is_cut {
            self.changed().await;
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
