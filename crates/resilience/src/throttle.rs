//! Attempts at a secret: a few are free, each further one must wait twice as long as the one before it, and nobody is locked
//! out for good.

use std::time::Duration;

use tokio::time::Instant;

/// How many attempts are free, and how the wait grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// Attempts without a wait.
    pub free: u32,
    /// The wait after them. It doubles with each attempt.
    pub delay: Duration,
    /// The longest wait.
    pub delay_max: Duration,
    /// After so long without an attempt they are free again. Longer than the longest wait, or that would end it.
    pub forget_after: Duration,
}

impl Steps {
    /// The wait after so many attempts.
    fn delay_after(&self, attempts: u32) -> Duration {
        let Some(doublings) = attempts.checked_sub(self.free) else {
            return Duration::ZERO;
        };
        let factor = 2_u32.saturating_pow(doublings);
        self.delay.saturating_mul(factor).min(self.delay_max)
    }
}

/// The attempts at one secret, or from one place.
#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    attempts: u32,
    last: Instant,
    /// None: the next one need not wait. Whoever looked at the clock before the last one did is not before its time.
    until: Option<Instant>,
}

impl Throttle {
    /// No attempt yet.
    pub fn new(now: Instant) -> Self {
        Self {
            attempts: 0,
            last: now,
            until: None,
        }
    }

    /// How long the next attempt has to wait; zero if it need not.
    pub fn wait(&self, now: Instant) -> Duration {
        self.until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Begins an attempt: how long it has to wait, and if that is zero it is counted. It counts when it begins, so that many at
    /// once are no way around.
    pub fn begin(&mut self, now: Instant, steps: &Steps) -> Duration {
        let wait = self.wait(now);
        if wait.is_zero() {
            if now.saturating_duration_since(self.last) >= steps.forget_after {
                self.attempts = 0;
            }
            self.attempts = self.attempts.saturating_add(1);
            self.last = now;
            let delay = steps.delay_after(self.attempts);
            self.until = (!delay.is_zero()).then(|| now + delay);
        }
        wait
    }

    /// Takes back an attempt: it was right, or was not made after all.
    pub fn take_back(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.until = None;
    }

    /// Has the next attempt wait as long as another process says.
    pub fn hold(&mut self, now: Instant, wait: Duration) {
        if !wait.is_zero() {
            self.until = self.until.max(Some(now + wait));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: Steps = Steps {
        free: 5,
        delay: Duration::from_secs(1),
        delay_max: Duration::from_secs(900),
        forget_after: Duration::from_secs(3_600),
    };

    #[test]
    fn five_are_free_and_each_further_one_waits_twice_as_long() {
        let mut now = Instant::now();
        let mut throttle = Throttle::new(now);

        let mut waits = Vec::new();
        for _ in 0..18 {
            let wait = throttle.wait(now);
            waits.push(wait.as_secs());
            now += wait;
            assert_eq!(throttle.begin(now, &STEPS), Duration::ZERO);
        }

        let expected = [
            0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900,
        ];
        assert_eq!(waits, expected);
    }

    #[test]
    fn of_two_at_once_the_one_with_the_earlier_clock_need_not_wait() {
        let earlier = Instant::now();
        let later = earlier + Duration::from_millis(1);
        let mut throttle = Throttle::new(earlier);

        assert_eq!(throttle.begin(later, &STEPS), Duration::ZERO);
        assert_eq!(throttle.begin(earlier, &STEPS), Duration::ZERO);
        throttle.begin(later, &STEPS);
        throttle.take_back();
        throttle.hold(later, Duration::ZERO);

        assert_eq!(throttle.wait(earlier), Duration::ZERO);
    }

    #[test]
    fn however_it_is_tried_a_day_has_few_attempts_and_the_last_wait_ends() {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let start = Instant::now();
            let (mut now, mut throttle) = (start, Throttle::new(start));
            let mut attempts = 0;
            while now < start + Duration::from_secs(86_400) {
                let begun = throttle.begin(now, &STEPS).is_zero();
                attempts += u32::from(begun);
                assert!(throttle.wait(now) <= STEPS.delay_max, "seed {seed}");
                now += Duration::from_secs(random.u64(1..600));
            }

            assert!(attempts <= 120, "seed {seed}: {attempts}");
        }
    }

    #[test]
    fn a_long_pause_makes_them_free_again() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        for _ in 0..5 {
            throttle.begin(start, &STEPS);
        }

        let later = start + STEPS.forget_after;
        throttle.begin(later, &STEPS);

        assert_eq!(throttle.wait(later), Duration::ZERO);
    }

    #[test]
    fn right_ones_leave_no_wait_however_many() {
        let now = Instant::now();
        let mut throttle = Throttle::new(now);

        for _ in 0..1_000 {
            assert_eq!(throttle.begin(now, &STEPS), Duration::ZERO);
            throttle.take_back();
        }
    }
}
