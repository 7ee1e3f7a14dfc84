//! What happened within the last while, forgotten a tenth of it at a time.

use std::time::Duration;

use tokio::time::Instant;

const SLOTS: usize = 10;

/// Counts of calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) calls: u32,
    pub(super) failures: u32,
    pub(super) slow: u32,
}

#[derive(Debug)]
pub(super) struct Window {
    slots: [Tally; SLOTS],
    /// How long one slot collects.
    each: Duration,
    begun: Instant,
    /// The number, counted from `begun`, of the slot that was written last.
    last: u128,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        let each = length / u32::try_from(SLOTS).expect("ten fits into any number");
        Self {
            slots: [Tally::default(); SLOTS],
            each,
            begun: Instant::now(),
            last: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots = [Tally::default(); SLOTS];
    }

    /// Adds one call, and sums up all that are not forgotten yet.
    pub(super) fn add(&mut self, is_success: bool, is_slow: bool) -> Tally {
        let now = self.begun.elapsed().as_nanos() / self.each.as_nanos().max(1);
        let passed = usize::try_from(now - self.last).map_or(SLOTS, |passed| passed.min(SLOTS));
        for step in 1..=passed {
            self.slots[slot(self.last + step as u128)] = Tally::default();
        }
        self.last = now;

        let current = &mut self.slots[slot(now)];
        current.calls = current.calls.saturating_add(1);
        current.failures += u32::from(!is_success);
        current.slow += u32::from(is_slow);
        let sum = |sum: Tally, slot: &Tally| Tally {
            calls: sum.calls.saturating_add(slot.calls),
            failures: sum.failures.saturating_add(slot.failures),
            slow: sum.slow.saturating_add(slot.slow),
        };
        self.slots.iter().fold(Tally::default(), sum)
    }
}

fn slot(number: u128) -> usize {
    usize::try_from(number % SLOTS as u128).expect("a remainder of ten fits into any number")
}
