//! The latest messages of a topic, without a gap: each one follows on the one before it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::message::Message;
use super::place::Offset;

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    bytes_max: usize,
    messages: VecDeque<Arc<Message>>,
    ids: HashSet<Uuid>,
    bytes: usize,
    /// What came before the oldest one.
    floor: Offset,
    /// The newest one that has come, kept or not.
    newest: Offset,
}

/// What a message is to what has come before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The next one.
    Next,
    /// It has come before.
    Known,
    /// The next one in the topic, but its event was published before.
    Again,
    /// There are others between that have not come.
    Gap,
}

impl Ring {
    /// Empty, and at `newest`.
    pub(super) fn at(newest: Offset, bytes_max: usize) -> Self {
        Self {
            bytes_max,
            messages: VecDeque::new(),
            ids: HashSet::new(),
            bytes: 0,
            floor: newest,
            newest,
        }
    }

    pub(super) fn newest(&self) -> Offset {
        self.newest
    }

    pub(super) fn floor(&self) -> Offset {
        self.floor
    }

    /// Takes the message if it is the next one. The oldest ones go when there is no room.
    pub(super) fn accept(&mut self, message: &Arc<Message>) -> Verdict {
        if message.offset() <= self.newest {
            return Verdict::Known;
        }
        if message.previous != self.newest {
            return Verdict::Gap;
        }
        self.newest = message.offset();
        if !self.ids.insert(message.id) {
            return Verdict::Again;
        }
        self.bytes += message.bytes();
        self.messages.push_back(Arc::clone(message));
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.messages.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.ids.remove(&oldest.id);
            self.floor = oldest.offset();
        }
        Verdict::Next
    }

    /// All that it has after `offset`; none if there may be more than it has.
    pub(super) fn after(&self, offset: Offset) -> Option<impl Iterator<Item = &Arc<Message>>> {
        if offset < self.floor {
            return None;
        }
        let start = self
            .messages
            .partition_point(|message| message.offset() <= offset);
        Some(self.messages.range(start..))
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::Position;
    use super::*;

    fn at(ms: u64) -> Offset {
        Offset { ms, number: 0 }
    }

    fn message(id: u128, ms: u64, previous: u64) -> Arc<Message> {
        Arc::new(Message {
            id: Uuid::from_u128(id),
            key: Uuid::nil(),
            body: "x".repeat(100).into(),
            position: Position {
                epoch: 1,
                offset: at(ms),
            },
            previous: at(previous),
        })
    }

    fn places(ring: &Ring, after: u64) -> Option<Vec<u64>> {
        let found = ring.after(at(after))?;
        Some(found.map(|message| message.published_ms()).collect())
    }

    #[test]
    fn a_message_is_taken_once_and_only_after_the_one_before_it() {
        let mut ring = Ring::at(at(10), 1 << 20);

        let verdicts = [
            message(1, 11, 10),
            message(1, 11, 10),
            message(2, 9, 8),
            message(3, 14, 13),
            message(3, 12, 11),
        ]
        .map(|message| ring.accept(&message));

        use Verdict::{Gap, Known, Next};
        assert_eq!(verdicts, [Next, Known, Known, Gap, Next]);
        assert_eq!(places(&ring, 10), Some(vec![11, 12]));
    }

    #[test]
    fn an_event_that_is_published_again_moves_on_and_is_not_kept() {
        let mut ring = Ring::at(at(0), 1 << 20);
        ring.accept(&message(1, 1, 0));

        assert_eq!(ring.accept(&message(1, 2, 1)), Verdict::Again);
        assert_eq!(ring.accept(&message(2, 3, 2)), Verdict::Next);

        assert_eq!(places(&ring, 0), Some(vec![1, 3]));
        assert_eq!(places(&ring, 2), Some(vec![3]));
    }

    #[test]
    fn what_is_dropped_for_room_is_said_to_be_missing() {
        let one = message(0, 1, 0).bytes();
        let mut ring = Ring::at(at(0), 3 * one);
        for number in 1..=5 {
            ring.accept(&message(number.into(), number, number - 1));
        }

        assert_eq!(places(&ring, 1), None);
        assert_eq!(places(&ring, 2), Some(vec![3, 4, 5]));
        assert_eq!(places(&ring, 5), Some(vec![]));
        // A client may have come farther in another process.
        assert_eq!(places(&ring, 6), Some(vec![]));
        // What was dropped may come again.
        assert_eq!(ring.accept(&message(1, 6, 5)), Verdict::Next);
    }
}
