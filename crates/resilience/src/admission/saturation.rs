//! How much is wanted of a process by what it can work on at once: what an autoscaler goes by.
//!
//! What is worked on says no more than that there is an overload, not how large it is: the rest is refused. By Little's law those
//! who were refused would have filled as many places as those who were let in, each for each, so the one is multiplied by the
//! other: three times the load that it can take is about 3.

use std::time::Duration;

use tokio::time::Instant;

/// As long as it usually takes from one scrape to the next, so that what is between them counts too.
const MEMORY: Duration = Duration::from_secs(15);
/// Where hardly anybody is let in, the numbers are too small to tell more than that it is far too much.
const WANTED_MAX: f64 = 10.0;

/// Means over about the last [`MEMORY`], of which the latest counts most.
#[derive(Debug, Default)]
pub(super) struct Saturation {
    noted: Option<Instant>,
    fill: f64,
    came: f64,
    refused: f64,
}

impl Saturation {
    /// Notes that the part `fill` of the places was taken since the last time. Called before that changes.
    pub(super) fn note(&mut self, now: Instant, fill: f64) {
        let weight = self.weight(now);
        self.noted = Some(now);
        self.fill += weight * (fill - self.fill);
        self.came *= 1.0 - weight;
        self.refused *= 1.0 - weight;
    }

    pub(super) fn came(&mut self) {
        self.came += 1.0;
    }

    pub(super) fn refused(&mut self) {
        self.refused += 1.0;
    }

    /// What is wanted by what there is, when the part `fill` was taken since the last note.
    pub(super) fn ratio(&self, now: Instant, fill: f64) -> f64 {
        let fill = self.fill + self.weight(now) * (fill - self.fill);
        let admitted = (self.came - self.refused).max(self.came / WANTED_MAX);
        if admitted > 0.0 {
            fill * self.came / admitted
        } else {
            fill
        }
    }

    /// How much the time since the last note counts against all before it.
    fn weight(&self, now: Instant) -> f64 {
        let since = self.noted.map_or(0.0, |noted| (now - noted).as_secs_f64());
        since / (MEMORY.as_secs_f64() + since)
    }
}
