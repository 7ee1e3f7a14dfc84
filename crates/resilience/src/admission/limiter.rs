//! How much to work on at once: as much as adds to what gets done, and no more.
//!
//! Latency above that of calm times says that something is slow; only throughput says whether it is a queue of our own. If
//! less at once gets as much done, it was a queue, and the limit stays down. If less at once gets less done, then the work
//! itself takes longer now, and latency is measured by that. So a limit neither creeps up while a mild overload slowly becomes
//! what is normal, nor down to nothing because a database has become slower for good.

use std::{collections::VecDeque, mem, time::Duration};

use tokio::time::Instant;

use super::Config;

/// Windows by which throughput is compared with how much was worked on.
const HISTORY: usize = 8;
/// How far the windows must differ (standard deviation of the logarithm) to compare anything.
const SPREAD_MIN: f64 = 0.12;
/// Throughput that follows the number in flight this closely (1: in proportion) is not held up by a queue.
const FOLLOWS: f64 = 0.6;
/// Throughput that follows it no closer than this is at its top.
const FLAT: f64 = 0.3;
/// How fast calm times are learned, per window.
const LEARNING: f64 = 0.2;

/// How a request ended, as far as it tells of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did its work.
    Done,
    /// It failed or was refused, which may be quicker than the work or slower.
    Failed,
    /// Its deadline passed.
    TimedOut,
}

/// See the module. Kinds of work are told apart, because some take longer than others by nature.
#[derive(Debug)]
pub(super) struct Limiter {
    config: Config,
    ceiling: f64,
    limit: f64,
    /// Seconds that each kind of work takes in calm; none before the first.
    calm: Vec<Option<f64>>,
    /// How many times longer all work takes now without any queue, from 1.
    slowness: f64,
    window: Window,
    /// In flight and done per second, by window, as logarithms.
    history: VecDeque<(f64, f64)>,
    /// Latency by what is tolerated, in the last window.
    stretch: f64,
}

#[derive(Debug, Default)]
struct Window {
    begun: Option<Instant>,
    ended: u32,
    done: u32,
    timed_out: u32,
    in_flight_sum: f64,
    in_flight_max: usize,
    /// Requests whose latency counts, what it was, and what it would have been in calm.
    weighed: u32,
    latency: f64,
    expected: f64,
    /// Sum and number of the latencies of each kind.
    by_kind: Vec<(f64, u32)>,
}

impl Limiter {
    pub(super) fn new(config: &Config, ceiling: usize) -> Self {
        let ceiling = ceiling.clamp(1, config.limit_max);
        Self {
            ceiling: as_f64(ceiling),
            limit: as_f64(config.limit_initial.min(ceiling)),
            calm: Vec::new(),
            slowness: 1.0,
            window: Window::default(),
            history: VecDeque::with_capacity(HISTORY),
            stretch: 0.0,
            config: config.clone(),
        }
    }

    /// How much may be worked on at once.
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Latency by what is tolerated, in the last window: above 1 there was a queue.
    pub(super) fn stretch(&self) -> f64 {
        self.stretch
    }

    /// Notes a request that ended with `in_flight` of them, itself included. True when a window ended with it.
    pub(super) fn record(&mut self, now: Instant, in_flight: usize, sample: &Sample) -> bool {
        if sample.kind >= self.calm.len() {
            self.calm.resize(sample.kind + 1, None);
            self.window.by_kind.resize(sample.kind + 1, (0.0, 0));
        }
        let seconds = sample.took.as_secs_f64();
        let expected = self.calm[sample.kind].unwrap_or(seconds);
        let window = &mut self.window;
        let begun = *window.begun.get_or_insert(now);
        window.ended += 1;
        window.in_flight_sum += as_f64(in_flight);
        window.in_flight_max = window.in_flight_max.max(in_flight);
        // A quick refusal says nothing of how busy we are, a slow one does.
        if sample.outcome != Outcome::Failed || seconds > expected {
            window.weighed += 1;
            window.latency += seconds;
            window.expected += expected;
        }
        match sample.outcome {
            Outcome::Done => {
                window.done += 1;
                let (sum, number) = &mut window.by_kind[sample.kind];
                *sum += seconds;
                *number += 1;
            }
            Outcome::Failed => {}
            Outcome::TimedOut => window.timed_out += 1,
        }
        let age = now.saturating_duration_since(begun);
        let is_over = age >= self.config.window && window.ended >= self.config.window_samples_min
            || age >= 10 * self.config.window;
        if is_over {
            self.end_window(age);
        }
        is_over
    }

    fn end_window(&mut self, age: Duration) {
        let next = Window {
            by_kind: vec![(0.0, 0); self.calm.len()],
            ..Window::default()
        };
        let window = mem::replace(&mut self.window, next);
        let ended = f64::from(window.ended);
        let tolerated = self.config.slowdown_tolerated * self.slowness * window.expected
            + f64::from(window.weighed.max(1)) * self.config.delay_tolerated.as_secs_f64();
        self.stretch = window.latency / tolerated;
        let was_limiting = 2.0 * as_f64(window.in_flight_max) >= self.limit;
        if !was_limiting {
            self.learn(&window, |_, _| true);
            self.slowness = (self.slowness * 0.9).max(1.0);
            self.history.clear();
            return;
        }
        self.learn(&window, |latency, calm| latency < calm);
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        // Nothing done is as little in a short window as in a long one.
        let done_per_second = (f64::from(window.done) / age.as_secs_f64()).max(0.1);
        self.history.push_back((
            (window.in_flight_sum / ended).ln().max(0.0),
            done_per_second.ln(),
        ));
        let timed_out = f64::from(window.timed_out) / ended;
        self.limit = self.next(timed_out).clamp(
            as_f64(self.config.limit_min).min(self.ceiling),
            self.ceiling,
        );
    }

    /// The limit for the next window, after one in which it mattered.
    fn next(&mut self, timed_out: f64) -> f64 {
        let gain = self.gain();
        if timed_out > 0.01 {
            return self.limit * (1.0 - timed_out / 2.0);
        }
        if gain.is_some_and(|gain| gain < FLAT) {
            self.slowness = (self.slowness * 0.9).max(1.0);
        }
        if self.stretch > 1.0 {
            if gain.is_some_and(|gain| gain > FOLLOWS) {
                self.slowness *= 1.25;
                return self.limit;
            }
            return self.limit / self.stretch.sqrt().min(2.0);
        }
        // More would only wait longer.
        if self.stretch > 0.7 && gain.is_some_and(|gain| gain < FLAT) {
            return self.limit;
        }
        self.limit + self.limit.sqrt()
    }

    /// By what power of the number in flight throughput grew, over the last windows: 1 is in proportion, 0 not at all. None
    /// when they were too much alike to tell.
    fn gain(&self) -> Option<f64> {
        if self.history.len() < 3 {
            return None;
        }
        let number = as_f64(self.history.len());
        let mean =
            |pick: fn(&(f64, f64)) -> f64| self.history.iter().map(pick).sum::<f64>() / number;
        let (in_flight, done) = (mean(|window| window.0), mean(|window| window.1));
        let (mut spread, mut together) = (0.0, 0.0);
        for window in &self.history {
            spread += (window.0 - in_flight).powi(2);
            together += (window.0 - in_flight) * (window.1 - done);
        }
        ((spread / number).sqrt() >= SPREAD_MIN).then(|| together / spread)
    }

    /// Moves what is known of calm times towards this window, for the kinds of work for which `wanted(latency, calm)`.
    fn learn(&mut self, window: &Window, wanted: impl Fn(f64, f64) -> bool) {
        for (calm, (sum, number)) in self.calm.iter_mut().zip(&window.by_kind) {
            if *number == 0 {
                continue;
            }
            let latency = sum / f64::from(*number);
            match calm {
                None => *calm = Some(latency),
                Some(calm) if wanted(latency, *calm) => *calm += LEARNING * (latency - *calm),
                Some(_) => {}
            }
        }
    }
}

/// A request that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) kind: usize,
    pub(super) took: Duration,
    pub(super) outcome: Outcome,
}

pub(super) fn as_f64(count: usize) -> f64 {
    count as f64
}
