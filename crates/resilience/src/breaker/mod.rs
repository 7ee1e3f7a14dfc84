//! Stops asking what does not answer, and finds out with one call at a time whether it does again.

mod config;
mod gate;
mod machine;
#[cfg(all(test, loom))]
mod orders;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;
mod window;

use std::{sync::PoisonError, time::Duration};

pub use config::Config;
use gate::{Published, Seen};
use machine::Machine;
pub use machine::State;
use sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering};

/// One for each dependency, shared by everything that asks it. A clone is the same breaker.
#[derive(Clone)]
pub struct Breaker(Arc<Shared>);

struct Shared {
    machine: Mutex<Machine>,
    /// What `enter` has to know of the machine, so that neither a call that is let through nor one that is refused waits for
    /// the lock.
    gate: Published,
    /// How often it went into each state, in the order of [`State::ALL`].
    changes: [AtomicU64; State::ALL.len()],
    changed: Box<dyn Fn(State) + Send + Sync>,
}

/// The breaker is open, or half-open with its one probe under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not asked, because it has failed too often; the next try is in {retry_after:?}")]
pub struct BreakerOpen {
    /// When the next call may be let through, as far as is known.
    pub retry_after: Duration,
}

impl Breaker {
    /// A closed breaker. `changed` is told every new state, in order, before anyone can act on it; it must not come back here.
    pub fn new(config: &Config, changed: impl Fn(State) + Send + Sync + 'static) -> Self {
        let machine = Machine::new(config);
        Self(Arc::new(Shared {
            gate: Published::new(&machine, config),
            machine: Mutex::new(machine),
            changes: Default::default(),
            changed: Box::new(changed),
        }))
    }

    /// Asks to make one call.
    ///
    /// # Errors
    /// At once, when the call would most likely be in vain.
    pub fn enter(&self) -> Result<Permit, BreakerOpen> {
        let (epoch, is_probe) = match self.0.gate.seen() {
            Seen::Closed { epoch } => (epoch, false),
            Seen::Due => self.0.change(Machine::enter)?,
            Seen::Refused(refused) => return Err(refused),
        };
        Ok(Permit {
            shared: Arc::clone(&self.0),
            epoch,
            is_probe,
        })
    }

    /// Whether a call would be let through at this moment. Somebody else may be quicker, so only `enter` gives the right.
    pub fn admits(&self) -> bool {
        !matches!(self.0.gate.seen(), Seen::Refused(_))
    }

    /// The state it is in. An open breaker whose time has passed stays open until somebody asks.
    pub fn state(&self) -> State {
        self.0.gate.state()
    }

    /// How often it went into a state.
    pub fn changes(&self, to: State) -> u64 {
        self.0.changes[to as usize].load(Ordering::Relaxed)
    }

    /// Closes it at once, for callers that know from elsewhere that the dependency is well.
    pub fn close(&self) {
        self.0.change(Machine::close);
    }
}

impl std::fmt::Debug for Breaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Breaker").field(&self.state()).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = self.lock();
        let before = machine.state();
        let result = act(&mut machine);
        let after = machine.state();
        if after != before {
            self.changes[after as usize].fetch_add(1, Ordering::Relaxed);
            (self.changed)(after);
        }
        self.gate.publish(&machine);
        result
    }
}

/// The right to make one call. Dropped without a record, as when the caller is cancelled, it says nothing about the
/// dependency, and a probe's place is free for another.
#[must_use = "a call that is not recorded teaches the breaker nothing"]
pub struct Permit {
    shared: Arc<Shared>,
    epoch: u64,
    is_probe: bool,
}

impl Permit {
    /// Whether this call decides if the breaker closes.
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Says how the call ended. A success that took too long counts against the dependency.
    pub fn record(self, is_success: bool, took: Duration) {
        let epoch = self.epoch;
        self.shared
            .change(|machine| machine.record(epoch, is_success, took));
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit")
            .field("is_probe", &self.is_probe)
            .finish_non_exhaustive()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_probe {
            self.shared.change(|machine| machine.give_back(self.epoch));
        }
    }
}
