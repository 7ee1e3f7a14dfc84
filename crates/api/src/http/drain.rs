//! How far a shutdown has come, as every connection sees it, and what it still has to wait for.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

/// The phases of a listener's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Accepting and answering.
    #[default]
    Serving,
    /// Still accepting and answering, while every answer asks the client to go elsewhere.
    LameDuck,
    /// Nothing new is accepted; what is in flight finishes.
    Closing,
}

/// Moves a listener through its phases. Clones move and see the same one.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    phase: watch::Sender<Phase>,
    unfinished: AtomicUsize,
}

/// A connection that the drain waits for.
#[derive(Debug)]
pub struct Pending(Arc<Shared>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.unfinished.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drain {
    /// Counts a connection until the returned guard goes.
    pub fn begin(&self) -> Pending {
        self.0.unfinished.fetch_add(1, Ordering::Relaxed);
        Pending(Arc::clone(&self.0))
    }

    /// Connections that have not ended. Once the listener is closing, each has a response to finish.
    pub fn unfinished(&self) -> usize {
        self.0.unfinished.load(Ordering::Relaxed)
    }

    /// Goes on to `phase`, never back.
    pub fn advance(&self, phase: Phase) {
        self.0.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }

    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Waits until `phase` has begun.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.0.phase.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }
}
