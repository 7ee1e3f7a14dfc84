//! A request that waits for another service is no load of ours: its place is another's meanwhile, and that time is none that we took.
//! Otherwise a service that hangs would be taken for an overload, and keep everybody out who does without it. How many wait so,
//! the bulkhead before that service bounds.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Admission, gate::Visitor};

/// Of one admitted request. A clone is the same request's.
#[derive(Clone, Debug)]
pub struct Absence(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    admission: Admission,
    visitor: Visitor,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many services it waits for at once.
    depth: usize,
    since: Option<Instant>,
    total: Duration,
    /// The request has ended, and whatever it has left behind waits on its own account.
    ended: bool,
}

impl Absence {
    pub(super) fn new(admission: Admission, visitor: Visitor) -> Self {
        Self(Arc::new(Shared {
            admission,
            visitor,
            state: Mutex::default(),
        }))
    }

    /// Begins to wait, until the result is dropped.
    pub fn begin(&self) -> Absent {
        let shared = &*self.0;
        let mut state = shared.state();
        state.depth += 1;
        if state.depth == 1 && !state.ended {
            let now = Instant::now();
            state.since = Some(now);
            let waiters = shared.admission.gate().step_out(now, shared.visitor);
            drop(state);
            shared.admission.let_in(waiters);
        }
        Absent(self.clone())
    }

    /// Ends with the request; how long it has waited altogether.
    pub(super) fn end(&self) -> Duration {
        let mut state = self.0.state();
        if state.depth > 0 {
            self.0.come_back(&mut state);
        }
        state.ended = true;
        state.total
    }
}

impl Shared {
    fn come_back(&self, state: &mut State) {
        let since = state.since.take();
        let now = Instant::now();
        state.total += since.map_or(Duration::ZERO, |since| now - since);
        self.admission.gate().step_in(now, self.visitor);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for another service.
#[derive(Debug)]
#[must_use = "it waits until this is dropped"]
pub struct Absent(Absence);

impl Drop for Absent {
    fn drop(&mut self) {
        let shared = &*self.0.0;
        let mut state = shared.state();
        state.depth -= 1;
        if state.depth == 0 && !state.ended {
            shared.come_back(&mut state);
        }
    }
}
