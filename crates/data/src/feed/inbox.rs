//! What has come over the subscription and is not dealt out yet. It is filled where the shared connection is read, so nothing in it
//! waits; what there is no room for is read from the stream later.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::message::Message;
use crate::redis::Listener;

pub(super) struct Inbox {
    bytes_max: usize,
    come: Mutex<Come>,
    filled: Notify,
}

#[derive(Default)]
struct Come {
    messages: VecDeque<Message>,
    bytes: usize,
    is_subscribed: bool,
    /// Whether any may have been missed since the last look.
    has_gap: bool,
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Look into the stream for what was missed.
    Repair,
    /// Deal these out.
    Deal(VecDeque<Message>),
    /// Nothing.
    Wait,
}

impl Inbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            come: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Whether messages come as they are published.
    pub(super) fn is_subscribed(&self) -> bool {
        self.lock().is_subscribed
    }

    pub(super) fn next(&self) -> Next {
        let mut come = self.lock();
        // Without a subscription there is no telling what comes next: it is looked for once there is one.
        if come.has_gap && come.is_subscribed {
            come.has_gap = false;
            return Next::Repair;
        }
        if come.messages.is_empty() {
            return Next::Wait;
        }
        come.bytes = 0;
        Next::Deal(mem::take(&mut come.messages))
    }

    /// Something is missing, so it has to be looked for.
    pub(super) fn missed(&self) {
        self.lock().has_gap = true;
        self.filled.notify_one();
    }

    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Come> {
        self.come.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Inbox {
    fn message(&self, payload: &[u8]) {
        let Some(message) = Message::from_payload(payload) else {
            tracing::debug!("ignored what is no message of the feed");
            return;
        };
        let mut come = self.lock();
        if come.bytes + message.bytes() > self.bytes_max {
            come.messages.clear();
            come.bytes = 0;
            come.has_gap = true;
        } else {
            come.bytes += message.bytes();
            come.messages.push_back(message);
        }
        drop(come);
        self.filled.notify_one();
    }

    fn subscribed(&self) {
        let mut come = self.lock();
        come.is_subscribed = true;
        come.has_gap = true;
        drop(come);
        self.filled.notify_one();
    }

    fn lost(&self) {
        let mut come = self.lock();
        come.is_subscribed = false;
        come.has_gap = true;
        drop(come);
        self.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn payload(ms: u64, body: &str) -> Vec<u8> {
        let id = Uuid::nil();
        format!("1 {ms}-0 {}-0 {id} {id} {body}", ms - 1).into_bytes()
    }

    fn places(next: Next) -> Vec<u64> {
        match next {
            Next::Deal(messages) => messages.iter().map(Message::published_ms).collect(),
            Next::Repair | Next::Wait => panic!("{next:?}"),
        }
    }

    #[test]
    fn a_subscription_begins_with_a_look_at_the_stream() {
        let inbox = Inbox::new(1 << 20);
        inbox.message(&payload(1, "{}"));

        assert_eq!(places(inbox.next()), [1]);
        inbox.subscribed();
        assert_eq!(inbox.next(), Next::Repair);
        assert_eq!(inbox.next(), Next::Wait);
        inbox.lost();
        assert_eq!(inbox.next(), Next::Wait);
    }

    #[test]
    fn what_there_is_no_room_for_is_to_be_read_from_the_stream() {
        let inbox = Inbox::new(1000);
        inbox.subscribed();
        inbox.next();

        for ms in 1..=4 {
            inbox.message(&payload(ms, &"x".repeat(300)));
        }

        assert_eq!(inbox.next(), Next::Repair);
        assert_eq!(places(inbox.next()), [4]);
    }
}
