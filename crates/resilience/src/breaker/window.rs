//! What happened within the last while, forgotten a tenth of it at a time.

use std::time::Duration;

use tokio::time::Instant;

const SLOTS: u64 = 10;

/// Counts of calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) calls: u32,
    pub(super) failures: u32,
    pub(super) slow: u32,
}

#[derive(Debug)]
pub(super) struct Window {
    slots: [Tally; SLOTS as usize],
    /// The sum of all slots.
    total: Tally,
    /// How long one slot collects, in nanoseconds.
    each: u64,
    begun: Instant,
    /// The number, counted from `begun`, of the slot that was written last.
    last: u64,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        Self {
            slots: Default::default(),
            total: Tally::default(),
            each: (nanoseconds(length) / SLOTS).max(1),
            begun: Instant::now(),
            last: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots = Default::default();
        self.total = Tally::default();
    }

    /// Adds one call, and answers with the sum of all that are not forgotten yet.
    pub(super) fn add(&mut self, is_success: bool, is_slow: bool) -> Tally {
        let now = nanoseconds(self.begun.elapsed()) / self.each;
        for step in 1..=(now - self.last).min(SLOTS) {
            let forgotten = std::mem::take(&mut self.slots[slot(self.last + step)]);
            self.total.calls -= forgotten.calls;
            self.total.failures -= forgotten.failures;
            self.total.slow -= forgotten.slow;
        }
        self.last = now;

        // So many calls that one more changes no share.
        if self.total.calls < u32::MAX {
            for tally in [&mut self.slots[slot(now)], &mut self.total] {
                tally.calls += 1;
                tally.failures += u32::from(!is_success);
                tally.slow += u32::from(is_slow);
            }
        }
        self.total
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn slot(number: u64) -> usize {
    usize::try_from(number % SLOTS).expect("a remainder of ten fits into any number")
}
