//! What the machine does with the next call, to be read without its lock.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    BreakerOpen, Config,
    machine::{Gate, Machine, State},
    sync::{AtomicU64, Ordering},
};

const CLOSED: u64 = 0;
const DUE: u64 = 1;
const PROBING: u64 = u64::MAX;

pub(super) struct Published {
    born: Instant,
    /// How long a probe may take is anyone's guess; if it fails, this is the least there is to wait.
    open_min: Duration,
    epoch: AtomicU64,
    /// One of the constants above, or until when it is open, in nanoseconds after `born` and beyond the constants.
    gate: AtomicU64,
}

/// What a call meets.
#[derive(Debug)]
pub(super) enum Seen {
    /// It is let through. Should the state have changed in the meantime, its epoch is an earlier one, and what it says does
    /// not count.
    Closed { epoch: u64 },
    /// It may be the probe: the machine decides.
    Due,
    /// It is refused.
    Refused(BreakerOpen),
}

impl Published {
    pub(super) fn new(machine: &Machine, config: &Config) -> Self {
        let published = Self {
            born: Instant::now(),
            open_min: config.open_min,
            epoch: AtomicU64::new(0),
            gate: AtomicU64::new(CLOSED),
        };
        published.publish(machine);
        published
    }

    /// To be called with the machine's lock held, after every change. Writes nothing where nothing has changed, so that the
    /// callers' copies stay good.
    pub(super) fn publish(&self, machine: &Machine) {
        let gate = match machine.gate() {
            Gate::Closed => CLOSED,
            Gate::Due => DUE,
            Gate::Probing => PROBING,
            Gate::Open { until } => self.nanoseconds(until),
        };
        // The epoch before the gate, and read in the same order: else a call that saw the gate closed could take along the
        // epoch of a probe, and decide in its place.
        if self.epoch.load(Ordering::Relaxed) != machine.epoch() {
            self.epoch.store(machine.epoch(), Ordering::Release);
        }
        if self.gate.load(Ordering::Relaxed) != gate {
            self.gate.store(gate, Ordering::Release);
        }
    }

    pub(super) fn seen(&self) -> Seen {
        let epoch = self.epoch.load(Ordering::Acquire);
        let retry_after = match self.gate.load(Ordering::Acquire) {
            CLOSED => return Seen::Closed { epoch },
            DUE => return Seen::Due,
            PROBING => self.open_min,
            until => {
                let left = until.saturating_sub(self.nanoseconds(Instant::now()));
                if left == 0 {
                    return Seen::Due;
                }
                Duration::from_nanos(left)
            }
        };
        Seen::Refused(BreakerOpen { retry_after })
    }

    pub(super) fn state(&self) -> State {
        match self.gate.load(Ordering::Acquire) {
            CLOSED => State::Closed,
            DUE | PROBING => State::HalfOpen,
            _ => State::Open,
        }
    }

    fn nanoseconds(&self, moment: Instant) -> u64 {
        let passed = moment.saturating_duration_since(self.born).as_nanos();
        let passed = u64::try_from(passed).unwrap_or(PROBING);
        passed.saturating_add(DUE + 1).min(PROBING - 1)
    }
}
