//! How much may be had in which time, and how much is left of it: GCRA (ITU-T I.371, annex A), which keeps one moment for
//! each quota and needs no timer. A quota fills up evenly, so that there is no edge of a window to wait for.

use std::{str::FromStr, time::Duration};

use humantime_serde::re::humantime;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// So much in such a time; all of it may be had at once. Written as `600/1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    /// Requests in each `window`.
    pub quota: u32,
    /// The time in which an empty quota is whole again.
    pub window: Duration,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (quota, window) = text.split_once('/')?;
            Some(Self {
                quota: quota.trim().replace('_', "").parse().ok()?,
                window: humantime::parse_duration(window.trim()).ok()?,
            })
        };
        let windows = Duration::from_secs(1)..=Duration::from_secs(86_400);
        parse()
            .filter(|rate| (1..=1_000_000).contains(&rate.quota) && windows.contains(&rate.window))
            .ok_or_else(|| {
                "must be a quota from 1 to 1000000 and a window from 1s to 1d, such as 600/1m"
                    .to_owned()
            })
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        let window = humantime::format_duration(rate.window);
        format!("{}/{window}", rate.quota)
    }
}

impl Rate {
    /// The time in which one request becomes free again.
    pub fn interval(&self) -> Duration {
        self.window / self.quota
    }

    /// What each of `parts` may have so that all together have no more than this; at least one.
    pub fn share(&self, parts: u32) -> Self {
        Self {
            quota: (self.quota / parts.max(1)).max(1),
            window: self.window,
        }
    }

    /// What is left when the quota is whole again in `whole_in`.
    pub fn standing(&self, whole_in: Duration) -> Standing {
        let free = self.window.saturating_sub(whole_in);
        let left = free.as_nanos() / self.interval().as_nanos().max(1);
        Standing {
            left: u32::try_from(left).unwrap_or(u32::MAX).min(self.quota),
            whole_in,
            wait: (whole_in + self.interval()).saturating_sub(self.window),
        }
    }
}

/// How a quota stands after a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests that may be made at once.
    pub left: u32,
    /// Until all of the quota may be had again.
    pub whole_in: Duration,
    /// Until the next request may be made; zero while some are left.
    pub wait: Duration,
}

/// How much of a quota is taken: the moment at which it will be whole again if nothing more is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level(Instant);

impl Level {
    /// Nothing is taken.
    pub(crate) fn whole(now: Instant) -> Self {
        Self(now)
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Instant, rate: &Rate) -> bool {
        let next = self.0.max(now) + rate.interval();
        let granted = next - now <= rate.window;
        if granted {
            self.0 = next;
        }
        granted
    }

    /// Gives one back.
    pub(crate) fn give_back(&mut self, rate: &Rate) {
        self.0 = self.0.checked_sub(rate.interval()).unwrap_or(self.0);
    }

    /// At least so much is taken.
    pub(crate) fn raise(&mut self, whole_at: Instant) {
        self.0 = self.0.max(whole_at);
    }

    pub(crate) fn standing(&self, now: Instant, rate: &Rate) -> Standing {
        rate.standing(self.0.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        quota: 10,
        window: Duration::from_secs(10),
    };

    #[test]
    fn a_whole_quota_may_be_had_at_once_and_comes_back_evenly() {
        let start = Instant::now();
        let mut level = Level::whole(start);

        let at_once = (0..20).filter(|_| level.take(start, &RATE)).count();
        let standing = level.standing(start, &RATE);
        let later = start + Duration::from_secs(3);
        let after = (0..20).filter(|_| level.take(later, &RATE)).count();

        assert_eq!((at_once, after), (10, 3));
        assert_eq!((standing.left, standing.wait), (0, RATE.interval()));
    }

    #[test]
    fn a_rate_is_written_as_it_is_read_and_nothing_else_is_one() {
        for text in ["600/1m", "1/1s", "1000000/1day"] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(String::from(rate), text);
        }
        for text in [
            "600",
            "/1m",
            "0/1m",
            "1000001/1m",
            "5/0s",
            "5/2d",
            "-1/1m",
            "5/1",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_window_at_any_time_grants_more_than_two_quotas() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let start = Instant::now();
            let (mut now, mut level) = (start, Level::whole(start));
            let mut granted = Vec::new();
            for _ in 0..400 {
                now += Duration::from_millis(random.u64(0..400));
                if level.take(now, &RATE) {
                    granted.push(now);
                }
            }

            for (first, begin) in granted.iter().enumerate() {
                let within = granted[first..]
                    .iter()
                    .take_while(|at| **at < *begin + RATE.window);
                assert!(within.count() <= 20, "seed {seed}");
            }
            let even = (now - start).as_secs() as usize + 1;
            assert!(granted.len() <= 10 + even, "seed {seed}");
        }
    }

    #[test]
    fn waiting_as_long_as_told_is_enough_and_no_less_is() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let rate = Rate {
                quota: random.u32(1..50),
                window: Duration::from_millis(random.u64(1_000..90_000)),
            };
            let now = Instant::now();
            let mut level = Level::whole(now);
            while level.take(now, &rate) {}

            let wait = level.standing(now, &rate).wait;

            let early = now + wait - Duration::from_nanos(1);
            assert!(!level.clone().take(early, &rate), "seed {seed}");
            assert!(level.take(now + wait, &rate), "seed {seed}");
        }
    }
}
