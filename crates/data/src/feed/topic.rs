//! One topic as this process knows it: its latest messages, and who hears of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

use super::inbox::Inbox;
use super::message::Message;
use super::place::{Offset, Position};
use super::queue::{Item, Queue};
use super::ring::{Ring, Verdict};

/// Which of a topic's messages somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// All of them.
    All,
    /// Those with this key.
    Key(Uuid),
}

impl Interest {
    pub(super) fn wants(self, message: &Message) -> bool {
        match self {
            Self::All => true,
            Self::Key(key) => message.key == key,
        }
    }
}

pub(super) struct Topic {
    /// Its place among all.
    pub(super) number: usize,
    pub(super) name: &'static str,
    pub(super) inbox: Arc<Inbox>,
    ring_bytes_max: usize,
    state: Mutex<State>,
    /// Whether the stream was read at least once.
    known: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// None until the stream was read for the first time.
    log: Option<Log>,
    all: HashMap<u64, Arc<Queue>>,
    keyed: HashMap<Uuid, Vec<(u64, Arc<Queue>)>>,
}

struct Log {
    epoch: u64,
    ring: Ring,
}

impl Log {
    fn position(&self) -> Position {
        let (epoch, offset) = (self.epoch, self.ring.newest());
        Position { epoch, offset }
    }
}

/// What became of messages.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dealt {
    /// They were dealt out, or had been before.
    All,
    /// Some between are missing.
    Gap,
}

/// Where a topic stands when somebody joins, and what that one has missed.
pub(super) struct Joined {
    /// None before the stream was read. When it is, everybody is told to fetch anew.
    pub(super) newest: Option<Position>,
    pub(super) missed: Missed,
}

/// What somebody has missed.
pub(super) enum Missed {
    /// All of it.
    Here(Vec<Arc<Message>>),
    /// What came after `floor`. What was before that is in the stream, or nowhere.
    Before {
        floor: Offset,
        rest: Vec<Arc<Message>>,
    },
    /// Nobody can say.
    Unknown,
}

impl Topic {
    pub(super) fn new(number: usize, name: &'static str, inbox: Inbox, ring: usize) -> Self {
        Self {
            number,
            name,
            inbox: Arc::new(inbox),
            ring_bytes_max: ring,
            state: Mutex::default(),
            known: watch::Sender::new(false),
        }
    }

    /// Waits until the stream was read for the first time.
    pub(super) async fn known(&self) {
        let mut known = self.known.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = known.wait_for(|known| *known).await;
    }

    /// Where it stands; none before the stream was read.
    pub(super) fn position(&self) -> Option<Position> {
        self.lock().log.as_ref().map(Log::position)
    }

    /// Where it stands, unless something waits in `queue`: read together, or a message could come between.
    pub(super) fn position_of(&self, queue: &Queue) -> Option<Position> {
        let state = self.lock();
        if !queue.is_empty() {
            return None;
        }
        state.log.as_ref().map(Log::position)
    }

    /// Deals out messages that follow one another; the first that does not follow ends it.
    pub(super) fn deal(&self, messages: impl IntoIterator<Item = Arc<Message>>) -> Dealt {
        let mut state = self.lock();
        for message in messages {
            let State { log, all, keyed } = &mut *state;
            let Some(log) = log else { return Dealt::Gap };
            if log.epoch != message.position.epoch {
                return Dealt::Gap;
            }
            match log.ring.accept(&message) {
                Verdict::Gap => return Dealt::Gap,
                Verdict::Known | Verdict::Again => continue,
                Verdict::Next => {}
            }
            let of_key = keyed.get(&message.key).into_iter().flatten();
            let queues = all.values().chain(of_key.map(|(_, queue)| queue));
            for queue in queues {
                queue.push(Item::Message(self.number, Arc::clone(&message)));
            }
        }
        Dealt::All
    }

    /// Begins anew with the end of the stream, and tells everybody that they may have missed something; how many that is.
    pub(super) fn reset(&self, newest: Position, end: Vec<Arc<Message>>) -> usize {
        let mut state = self.lock();
        let start = end
            .first()
            .map_or(newest.offset, |message| message.previous);
        let mut ring = Ring::at(start, self.ring_bytes_max);
        for message in end {
            ring.accept(&message);
        }
        state.log = Some(Log {
            epoch: newest.epoch,
            ring,
        });
        let keyed = state.keyed.values().flatten().map(|(_, queue)| queue);
        let mut told = 0;
        for queue in state.all.values().chain(keyed) {
            queue.push(Item::Refetch(self.number, newest));
            told += 1;
        }
        drop(state);
        self.known.send_replace(true);
        told
    }

    /// From now on `queue` hears of what is of `interest`. What came after `since` is returned, as far as it is here.
    pub(super) fn join(
        &self,
        id: u64,
        queue: &Arc<Queue>,
        interest: Interest,
        since: Option<Position>,
    ) -> Joined {
        let mut state = self.lock();
        match interest {
            Interest::All => drop(state.all.insert(id, Arc::clone(queue))),
            Interest::Key(key) => {
                let of_key = state.keyed.entry(key).or_default();
                of_key.push((id, Arc::clone(queue)));
            }
        }
        let Some(log) = &state.log else {
            let (newest, missed) = (None, Missed::Unknown);
            return Joined { newest, missed };
        };
        let after = |offset| {
            let after = log.ring.after(offset)?;
            let wanted = after.filter(|message| interest.wants(message)).cloned();
            Some(wanted.collect())
        };
        let missed = match since {
            Some(since) if since.epoch == log.epoch => match after(since.offset) {
                Some(missed) => Missed::Here(missed),
                None => Missed::Before {
                    floor: log.ring.floor(),
                    rest: after(log.ring.floor()).unwrap_or_default(),
                },
            },
            _ => Missed::Unknown,
        };
        Joined {
            newest: Some(log.position()),
            missed,
        }
    }

    pub(super) fn leave(&self, id: u64, interest: Interest) {
        let mut state = self.lock();
        match interest {
            Interest::All => drop(state.all.remove(&id)),
            Interest::Key(key) => {
                if let Some(of_key) = state.keyed.get_mut(&key) {
                    of_key.retain(|(other, _)| *other != id);
                    if of_key.is_empty() {
                        state.keyed.remove(&key);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
