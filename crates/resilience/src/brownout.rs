//! Brownout: in an overload that lasts, what is expendable is switched off, one step after the other, and comes back one step
//! after the other when it has been over for long enough. Whoever relapses waits longer each time, so that what cures
//! the overload is not switched on and off for ever.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::ranges::between;

const HOUR: Duration = Duration::from_secs(3600);

/// When a step is taken.
#[derive(Clone, Debug, Serialize, Deserialize, Validate)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How much longer than not there was an overload before the first step, and again before each further one.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), HOUR)))]
    pub step_after: Duration,
    /// How long there was none without a break before a step is taken back, and again before each further one.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), HOUR)))]
    pub calm_min: Duration,
    /// What that grows to at most: it doubles when the overload is back soon after a step was taken back.
    #[serde(with = "humantime_serde")]
    #[garde(custom(between(Duration::from_millis(10), HOUR)))]
    pub calm_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            step_after: Duration::from_secs(1),
            calm_min: Duration::from_secs(5),
            calm_max: Duration::from_secs(60),
        }
    }
}

/// See the module. It is told at short intervals how things are, and says how many steps are to be taken.
#[derive(Debug)]
pub struct Brownout {
    config: Config,
    /// How many steps there are.
    steps: usize,
    level: usize,
    looked: Option<Instant>,
    /// How much longer there was an overload than none since the last step, and never less than nothing. So an overload
    /// with gaps counts as well, and one that is seen now and then does not.
    strain: Duration,
    calm_since: Option<Instant>,
    calm_needed: Duration,
    /// When the last step was taken back, unless one was taken since.
    eased: Option<Instant>,
}

impl Brownout {
    /// One that takes at most so many steps.
    pub fn new(config: &Config, steps: usize) -> Self {
        Self {
            config: config.clone(),
            steps,
            level: 0,
            looked: None,
            strain: Duration::ZERO,
            calm_since: None,
            calm_needed: config.calm_min,
            eased: None,
        }
    }

    /// Notes whether there is an overload now; the number of steps that are to be taken from now on. It differs by at most
    /// one from the number before.
    pub fn look(&mut self, now: Instant, is_overloaded: bool) -> usize {
        let passed = self
            .looked
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.looked = Some(now);
        if is_overloaded {
            self.strain += passed;
            self.calm_since = None;
            if self.strain >= self.config.step_after {
                self.step(now);
            }
        } else {
            self.strain = self.strain.saturating_sub(passed);
            let since = *self.calm_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= self.calm_needed {
                self.ease(now);
            }
        }
        self.level
    }

    fn step(&mut self, now: Instant) {
        self.strain = Duration::ZERO;
        if self.level == self.steps {
            return;
        }
        self.level += 1;
        let is_relapse = |eased: Instant| now < eased + self.calm_needed;
        if self.eased.take().is_some_and(is_relapse) {
            self.calm_needed = (2 * self.calm_needed).min(self.config.calm_max);
        }
    }

    fn ease(&mut self, now: Instant) {
        self.calm_since = Some(now);
        if self.level == 0 {
            self.calm_needed = self.config.calm_min;
        } else {
            self.level -= 1;
            self.eased = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const STEPS: usize = 3;
    const SEEDS: u64 = 300;
    const LOOK: Duration = Duration::from_millis(100);

    /// A brownout and the moment of its last look.
    struct Scene {
        brownout: Brownout,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let mut brownout = Brownout::new(&Config::default(), STEPS);
            let now = Instant::now();
            brownout.look(now, false);
            Self { brownout, now }
        }

        fn look_after(&mut self, pause: Duration, is_overloaded: bool) -> usize {
            self.now += pause;
            self.brownout.look(self.now, is_overloaded)
        }

        /// Looks so often; the level of each look.
        fn look_often(&mut self, looks: usize, is_overloaded: bool) -> Vec<usize> {
            let look = |_| self.look_after(LOOK, is_overloaded);
            (0..looks).map(look).collect()
        }
    }

    fn changes(levels: &[usize]) -> usize {
        levels.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    #[test]
    fn each_second_of_overload_is_a_step_and_each_five_of_calm_take_one_back() {
        let mut scene = Scene::new();

        let overload = scene.look_often(100, true);
        let calm = scene.look_often(200, false);

        let first = |levels: &[usize], wanted| levels.iter().position(|level| *level == wanted);
        assert_eq!(
            [1, 2, 3].map(|level| first(&overload, level)),
            [9, 19, 29].map(Some)
        );
        assert_eq!(
            [2, 1, 0].map(|level| first(&calm, level)),
            [50, 100, 150].map(Some)
        );
        assert_eq!(changes(&[overload, calm].concat()), 2 * STEPS);
    }

    #[test]
    fn an_overload_with_gaps_counts_and_one_seen_now_and_then_does_not() {
        let [mut often, mut seldom] = [Scene::new(), Scene::new()];

        for _ in 0..100 {
            often.look_often(3, true);
            often.look_often(1, false);
            seldom.look_often(1, true);
            seldom.look_often(3, false);
        }

        assert_eq!(
            [often, seldom].map(|scene| scene.brownout.level),
            [STEPS, 0]
        );
    }

    /// The worst there is: one step cures the overload, and taking it back brings the overload back at once.
    #[test]
    fn what_cures_the_overload_is_tried_again_about_once_a_minute_in_the_end() {
        let mut scene = Scene::new();
        let mut levels = vec![0];

        for _ in 0..36_000 {
            let is_overloaded = levels.last() == Some(&0);
            levels.push(scene.look_after(LOOK, is_overloaded));
        }

        let changes = changes(&levels);
        println!("{changes} changes in an hour of it");
        assert!(changes <= 2 * (4 + 60), "{changes}");
        assert!(!levels.contains(&2));
    }

    /// Whatever happens in whatever order: one step at a time, each for the reason it is there for and not before its time,
    /// and in the end all or nothing is switched off.
    #[test]
    fn no_order_of_overload_and_calm_makes_it_flap() {
        let config = Config::default();
        for seed in 0..SEEDS {
            let mut rng = Rng::with_seed(seed);
            let mut scene = Scene::new();
            let (mut level, mut overloaded, mut calm) = (0, Duration::ZERO, Duration::ZERO);
            for _ in 0..400 {
                let is_overloaded = rng.bool();
                let looks = if rng.bool() { 1 } else { rng.usize(..80) };
                for _ in 0..looks {
                    let pause = LOOK.mul_f64(0.5 + rng.f64());
                    let found = scene.look_after(pause, is_overloaded);
                    // A calm begins with its first look, and not between two.
                    (overloaded, calm) = match (is_overloaded, calm.is_zero()) {
                        (true, _) => (overloaded + pause, Duration::ZERO),
                        (false, true) => (overloaded, Duration::from_nanos(1)),
                        (false, false) => (overloaded, calm + pause),
                    };
                    if found > level {
                        assert!(is_overloaded && found == level + 1, "seed {seed}");
                        assert!(
                            overloaded >= config.step_after,
                            "seed {seed}: {overloaded:?}"
                        );
                    } else if found < level {
                        assert!(!is_overloaded && found == level - 1, "seed {seed}");
                        assert!(calm >= config.calm_min, "seed {seed}: {calm:?}");
                    }
                    assert!(found <= STEPS, "seed {seed}");
                    if found != level {
                        (level, overloaded, calm) =
                            (found, Duration::ZERO, Duration::from_nanos(1));
                    }
                }
            }
            assert_eq!(
                scene.look_often(40, true).last(),
                Some(&STEPS),
                "seed {seed}"
            );
            assert_eq!(
                scene.look_often(2400, false).last(),
                Some(&0),
                "seed {seed}"
            );
        }
    }
}
