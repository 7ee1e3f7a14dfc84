//! Stopping a connection in the middle of a round trip.

use std::sync::Arc;

use tokio::sync::watch;

/// Where in a round trip.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Moment {
    /// The server has not heard the request.
    Asked,
    /// The server has answered, and the client has not heard it.
    Answered,
}

/// Which round trip is to be stopped, for all connections of a meter.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<watch::Sender<Stage>>);

#[derive(Clone, Copy, Default, PartialEq)]
enum Stage {
    #[default]
    None,
    /// After so many more round trips.
    In(usize, Moment),
    /// It is under way.
    Due,
    /// A connection is stopped.
    Reached,
}

impl Stop {
    pub(super) fn set(&self, nth: usize, moment: Moment) {
        self.0.send_replace(Stage::In(nth, moment));
    }

    pub(super) fn clear(&self) {
        self.0.send_replace(Stage::None);
    }

    pub(super) async fn reached(&self) {
        self.wait_until(|stage| stage == Stage::Reached).await;
    }

    /// Counts a round trip; the moment at which it is to be stopped.
    pub(super) fn count(&self) -> Option<Moment> {
        let mut due = None;
        self.0.send_if_modified(|stage| {
            let Stage::In(left, moment) = *stage else {
                return false;
            };
            *stage = match left {
                0 | 1 => Stage::Due,
                _ => Stage::In(left - 1, moment),
            };
            due = (*stage == Stage::Due).then_some(moment);
            true
        });
        due
    }

    /// Stays until what is stopped is to be closed.
    pub(super) async fn hold(&self) {
        self.0.send_replace(Stage::Reached);
        self.wait_until(|stage| stage != Stage::Reached).await;
    }

    async fn wait_until(&self, condition: impl Fn(Stage) -> bool) {
        // The sender lives in `self`.
        let _ = self.0.subscribe().wait_for(|stage| condition(*stage)).await;
    }
}
