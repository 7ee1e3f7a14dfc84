//! How far a replica has replayed its primary's log, told by the background check, and more often while a request waits.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

use super::log::Point;

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress {
    replayed: watch::Sender<Point>,
    waiters: AtomicUsize,
    look: Notify,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            replayed: watch::Sender::new(Point::default()),
            waiters: AtomicUsize::new(0),
            look: Notify::new(),
        }
    }
}

impl Progress {
    /// How far it was, as last seen.
    pub(crate) fn replayed(&self) -> Point {
        *self.replayed.borrow()
    }

    /// Notes how far it is. Wakes who waited for that.
    pub(crate) fn note(&self, point: Point) {
        self.replayed.send_if_modified(|last| {
            let is_new = *last != point;
            *last = point;
            is_new
        });
    }

    /// Waits until it has come as far as `need`. The caller bounds the time.
    pub(crate) async fn reach(&self, need: Point) {
        let mut replayed = self.replayed.subscribe();
        let _waiter = Waiter::new(self);
        // An error would mean that the sender is gone, and it stands in `self`.
        let _ = replayed.wait_for(|replayed| replayed.covers(need)).await;
    }

    /// Has the background check look at the node now.
    pub(crate) fn look_now(&self) {
        self.look.notify_one();
    }

    /// Waits until somebody waits, or wants a look.
    pub(crate) async fn wanted(&self) {
        if self.waiters.load(Ordering::Acquire) == 0 {
            self.look.notified().await;
        }
    }
}

/// One who waits; no longer when dropped.
struct Waiter<'a>(&'a Progress);

impl<'a> Waiter<'a> {
    fn new(progress: &'a Progress) -> Self {
        if progress.waiters.fetch_add(1, Ordering::AcqRel) == 0 {
            progress.look.notify_one();
        }
        Self(progress)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::AcqRel);
    }
}
