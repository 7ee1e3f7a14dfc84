//! Events that wait to be written. Whoever comes when there is no room is turned away: what came first may be waiting for a database
//! that will be back in a moment.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::model::{Event, NewEvent};

pub(super) struct Buffer {
    events_max: usize,
    batch_max: usize,
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Event>,
    /// How many are being written; they take up room until that has ended.
    in_hand: usize,
}

impl Queue {
    fn len(&self) -> usize {
        self.waiting.len() + self.in_hand
    }
}

impl Buffer {
    pub(super) fn new(events_max: usize, batch_max: usize) -> Self {
        Self {
            events_max,
            batch_max,
            queue: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Takes as many as there is room for; how many.
    pub(super) fn put(&self, new: Vec<NewEvent>) -> usize {
        let room = |queue: &Queue| self.events_max - queue.len();
        // Looked at before, so that refusing costs next to nothing, and again, because others came meanwhile.
        let about = room(&self.lock());
        let events: Vec<Event> = new.into_iter().take(about).map(Event::from).collect();
        let mut queue = self.lock();
        let accepted = events.len().min(room(&queue));
        queue.waiting.extend(events.into_iter().take(accepted));
        if queue.waiting.len() >= self.batch_max {
            self.filled.notify_one();
        }
        accepted
    }

    /// Waits for a whole batch.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// The oldest ones, a batch at most. The one before has been written, or dropped.
    pub(super) fn next(&self) -> Vec<Event> {
        let mut queue = self.lock();
        let batch = queue.waiting.len().min(self.batch_max);
        queue.in_hand = batch;
        queue.waiting.drain(..batch).collect()
    }

    /// How many wait or are being written.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn new(count: usize) -> Vec<NewEvent> {
        let new = |_| from_value(json!({ "name": "product_viewed" })).unwrap();
        (0..count).map(new).collect()
    }

    #[test]
    fn there_is_never_more_than_there_may_be_with_what_is_being_written() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (events_max, batch_max) = (rng.usize(1..50), rng.usize(1..20));
            let buffer = Buffer::new(events_max, batch_max);
            let (mut waiting, mut in_hand) = (0, 0);
            for _ in 0..100 {
                if rng.bool() {
                    let came = rng.usize(1..20);
                    let room = events_max - waiting - in_hand;
                    assert_eq!(buffer.put(new(came)), came.min(room), "seed {seed}");
                    waiting += came.min(room);
                } else {
                    in_hand = buffer.next().len();
                    assert_eq!(in_hand, waiting.min(batch_max), "seed {seed}");
                    waiting -= in_hand;
                }
                assert_eq!(buffer.len(), waiting + in_hand, "seed {seed}");
            }
        }
    }
}
