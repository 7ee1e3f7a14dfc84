//! What is known of a cluster's write-ahead log: whose it is, which timeline it is on, and where it ended when.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::position::Position;

/// So many positions of the primary's log are remembered at most.
const SEEN_MAX: usize = 64;

/// The log of one cluster, as the primary was last seen to write it.
#[derive(Debug)]
pub(crate) struct Log {
    /// 0 until the primary was seen once.
    system: AtomicU64,
    state: Mutex<State>,
    lag_max: Duration,
}

#[derive(Debug, Default)]
struct State {
    timeline: u32,
    /// Where the primary was when it was first seen on this timeline. Whatever survived of older ones lies before it.
    first_seen_at: u64,
    seen: VecDeque<(Instant, u64)>,
}

/// What a replica must have replayed to answer a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// This much of this timeline.
    Replayed(Point),
    /// No replica is known to be good enough: the primary is asked.
    Primary,
}

/// A point of one cluster's log: where a commit was, or how far a standby has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) timeline: u32,
    pub(crate) lsn: u64,
}

impl Point {
    pub(crate) fn covers(self, need: Self) -> bool {
        self.timeline == need.timeline && self.lsn >= need.lsn
    }
}

/// How far a standby is behind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lag {
    pub(crate) time: Duration,
    pub(crate) bytes: u64,
}

impl Log {
    pub(crate) fn new(lag_max: Duration) -> Self {
        Self {
            system: AtomicU64::new(0),
            state: Mutex::default(),
            lag_max,
        }
    }

    /// The cluster's identity. 0 while unknown.
    pub(crate) fn system(&self) -> u64 {
        self.system.load(Ordering::Relaxed)
    }

    /// Notes where the primary is. True when that is a new timeline: there was a failover.
    pub(crate) fn note(&self, position: Position, now: Instant) -> bool {
        let mut state = self.state();
        let is_known = self.system.swap(position.system, Ordering::Relaxed) == position.system;
        let is_failover = is_known && state.timeline != position.timeline;
        if !is_known || is_failover {
            *state = State {
                timeline: position.timeline,
                first_seen_at: position.lsn,
                seen: VecDeque::new(),
            };
        }
        // Entries so far apart that all of them together reach back several times `lag_max`.
        let step = self.lag_max / 16;
        let is_old_news = |(at, last): &(Instant, u64)| now - *at < step || *last == position.lsn;
        if !state.seen.back().is_some_and(is_old_news) {
            if state.seen.len() == SEEN_MAX {
                state.seen.pop_front();
            }
            state.seen.push_back((now, position.lsn));
        }
        is_failover
    }

    /// Whether a commit shows that there was a failover which has not been noted.
    pub(crate) fn is_overtaken_by(&self, commit: Point) -> bool {
        self.state().timeline < commit.timeline
    }

    /// What a read needs that has to see `position`. A position of an older timeline may lie on a branch that was cut off,
    /// so it becomes the moment at which the new timeline was first seen: whatever of it survived, happened before.
    pub(crate) fn need(&self, position: Position) -> Need {
        let state = self.state();
        let lsn = match position.timeline.cmp(&state.timeline) {
            std::cmp::Ordering::Less => state.first_seen_at,
            std::cmp::Ordering::Equal => position.lsn,
            std::cmp::Ordering::Greater => return Need::Primary,
        };
        Need::Replayed(Point {
            timeline: state.timeline,
            lsn,
        })
    }

    /// How far behind a replica is. Time is how long ago the primary was seen at a position that the replica has not reached:
    /// unlike the age of the last replayed transaction it does not grow while nothing is written.
    pub(crate) fn lag(&self, replayed: u64, now: Instant) -> Lag {
        let state = self.state();
        let missing = state.seen.iter().find(|(_, position)| replayed < *position);
        let last = state.seen.back().map_or(0, |(_, position)| *position);
        Lag {
            time: missing.map_or(Duration::ZERO, |(at, _)| now - *at),
            bytes: last.saturating_sub(replayed),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timeline: u32, lsn: u64) -> Position {
        Position {
            system: 7,
            timeline,
            lsn,
        }
    }

    fn replayed(timeline: u32, lsn: u64) -> Need {
        Need::Replayed(Point { timeline, lsn })
    }

    #[test]
    fn lag_is_the_age_of_the_first_missing_position_and_rests_while_nothing_is_written() {
        let start = Instant::now();
        let second = |seconds| start + Duration::from_secs(seconds);
        let log = Log::new(Duration::from_secs(1));
        for (seconds, lsn) in [100, 200, 300, 300, 300].into_iter().enumerate() {
            log.note(at(1, lsn), second(seconds as u64));
        }

        let lags = [300, 250, 150, 0].map(|replayed| log.lag(replayed, second(5)));

        assert_eq!(lags.map(|lag| lag.time.as_secs()), [0, 3, 4, 5]);
        assert_eq!(lags.map(|lag| lag.bytes), [0, 50, 150, 300]);
    }

    #[test]
    fn a_position_of_an_older_timeline_becomes_the_begin_of_the_new_one() {
        let log = Log::new(Duration::from_secs(1));
        log.note(at(1, 100), Instant::now());
        let before = log.need(at(1, 90));

        let is_failover = log.note(at(2, 150), Instant::now());

        assert_eq!((before, is_failover), (replayed(1, 90), true));
        // It was written on the old primary after the standby had left it: it is lost, and must not be waited for.
        assert_eq!(log.need(at(1, 900)), replayed(2, 150));
        assert_eq!(log.need(at(2, 170)), replayed(2, 170));
        assert_eq!(log.need(at(3, 1)), Need::Primary);
    }
}
