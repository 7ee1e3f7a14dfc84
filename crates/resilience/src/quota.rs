//! One principal's quota, as one of several processes sees it that share a store.
//!
//! Asking the store for every request would make each of them wait for it. A process decides by what it knows, and tells the
//! store in parcels; only the last request of a parcel waits for the answer, which says what the other processes took. What a
//! process knows is never more than what is taken, so it refuses without asking. While the store is away each process
//! keeps to its share.

use std::time::Duration;

use tokio::time::Instant;

use crate::rate::{Level, Rate, Standing};

/// A parcel is this part of a quota, so that processes that have not told of theirs exceed it by no more each.
const PARCELS: u32 = 40;

/// What a principal may have of all processes together.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Of all together.
    pub rate: Rate,
    /// How many processes share it; each keeps to its part while the store is away.
    pub processes: u32,
}

impl Limit {
    fn parcel(&self) -> u32 {
        (self.rate.quota / PARCELS).max(1)
    }

    fn share(&self) -> Rate {
        self.rate.share(self.processes)
    }
}

/// How far a request may go for its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To the store, if the parcel is full.
    Store,
    /// No further than this process; the store is told with a later request.
    Process,
    /// There is no store.
    Alone,
}

/// Whether a request may be served, and how the quota stands after it.
pub type Verdict = Result<Standing, Standing>;

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This.
    Made(Verdict),
    /// Ask the store, then call [`Quota::told`] or [`Quota::untold`].
    Ask(Asked),
}

/// A question to the store: whether one more is free when `given` are counted that it does not know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Requests served since it was told.
    pub given: u32,
    /// The decision if it does not answer.
    fits_alone: bool,
}

/// See the module. One that was not used for a window is as good as a new one.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// What all processes have taken, as far as is known here.
    known: Level,
    /// What this process has taken of its share.
    alone: Level,
    /// What this process has taken and the store does not know of.
    untold: u32,
}

impl Quota {
    /// Nothing is taken.
    pub fn new(now: Instant) -> Self {
        Self {
            known: Level::whole(now),
            alone: Level::whole(now),
            untold: 0,
        }
    }

    /// Decides on one request.
    pub fn take(&mut self, now: Instant, limit: &Limit, reach: Reach) -> Decision {
        let fits_alone = self.alone.take(now, &limit.share());
        if reach == Reach::Alone {
            if fits_alone && self.known.take(now, &limit.rate) {
                self.untold = self.untold.saturating_add(1);
            }
            return Decision::Made(self.by_share(now, limit, fits_alone));
        }
        if !self.known.take(now, &limit.rate) {
            if fits_alone {
                self.alone.give_back(&limit.share());
            }
            return Decision::Made(Err(self.known.standing(now, &limit.rate)));
        }
        self.untold = self.untold.saturating_add(1);
        if reach == Reach::Store && self.untold >= limit.parcel() {
            let given = self.untold - 1;
            self.untold = 0;
            return Decision::Ask(Asked { given, fits_alone });
        }
        Decision::Made(Ok(self.known.standing(now, &limit.rate)))
    }

    /// The store has answered: whether it granted the request, and when the quota will be whole for everybody.
    pub fn told(
        &mut self,
        now: Instant,
        limit: &Limit,
        granted: bool,
        whole_in: Duration,
    ) -> Verdict {
        if !granted {
            self.known.give_back(&limit.rate);
        }
        let since = limit.rate.interval() * self.untold;
        // A store that knows of less than this process has told it has lost what it knew.
        self.known.raise(now + whole_in.saturating_add(since));
        let standing = self.known.standing(now, &limit.rate);
        if granted { Ok(standing) } else { Err(standing) }
    }

    /// The store has not answered.
    pub fn untold(&mut self, now: Instant, limit: &Limit, asked: Asked) -> Verdict {
        self.untold = self.untold.saturating_add(asked.given).saturating_add(1);
        self.by_share(now, limit, asked.fits_alone)
    }

    /// Takes back a request that [`Reach::Process`] granted, because it was somebody else's.
    pub fn give_back(&mut self, limit: &Limit) {
        self.known.give_back(&limit.rate);
        self.alone.give_back(&limit.share());
        self.untold = self.untold.saturating_sub(1);
    }

    fn by_share(&self, now: Instant, limit: &Limit, fits: bool) -> Verdict {
        let standing = self.alone.standing(now, &limit.share());
        if fits { Ok(standing) } else { Err(standing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit {
        rate: Rate {
            quota: 200,
            window: Duration::from_secs(60),
        },
        processes: 2,
    };

    /// The store: the same arithmetic, in one place for all.
    struct Store(Level);

    impl Store {
        fn ask(&mut self, now: Instant, given: u32) -> (bool, Duration) {
            for _ in 0..given {
                self.0.take(now, &LIMIT.rate);
            }
            let granted = self.0.take(now, &LIMIT.rate);
            (granted, self.0.standing(now, &LIMIT.rate).whole_in)
        }
    }

    /// Requests to processes at random, as fast as the seed says; how many were served.
    fn served(seed: u64, processes: usize, store_is_up: bool) -> u32 {
        let mut random = fastrand::Rng::with_seed(seed);
        let start = Instant::now();
        let mut now = start;
        let mut store = Store(Level::whole(now));
        let mut quotas = vec![Quota::new(now); processes];
        let mut served = 0;
        for _ in 0..5_000 {
            now += Duration::from_micros(random.u64(0..100));
            let quota = &mut quotas[random.usize(0..processes)];
            let reach = if store_is_up {
                Reach::Store
            } else {
                Reach::Alone
            };
            let verdict = match quota.take(now, &LIMIT, reach) {
                Decision::Ask(asked) => {
                    let (granted, whole_in) = store.ask(now, asked.given);
                    quota.told(now, &LIMIT, granted, whole_in)
                }
                Decision::Made(verdict) => verdict,
            };
            served += u32::from(verdict.is_ok());
        }
        served
    }

    #[test]
    fn two_processes_share_a_quota_within_a_twentieth() {
        for seed in 0..200 {
            let served = served(seed, 2, true);

            assert!((200..=210).contains(&served), "seed {seed}: {served}");
        }
    }

    #[test]
    fn without_a_store_each_keeps_to_its_share() {
        for seed in 0..200 {
            assert_eq!(served(seed, 2, false), 200, "seed {seed}");
            assert_eq!(served(seed, 1, false), 100, "seed {seed}");
        }
    }

    #[test]
    fn only_full_parcels_are_told_and_a_refusal_is_free() {
        let now = Instant::now();
        let mut store = Store(Level::whole(now));
        let mut quota = Quota::new(now);
        let mut asked = 0;
        for _ in 0..10_000 {
            if let Decision::Ask(question) = quota.take(now, &LIMIT, Reach::Store) {
                asked += 1;
                let (granted, whole_in) = store.ask(now, question.given);
                let _ = quota.told(now, &LIMIT, granted, whole_in);
            }
        }

        assert_eq!(asked, 40);
    }

    #[test]
    fn what_others_took_is_known_after_one_question() {
        let now = Instant::now();
        let mut quota = Quota::new(now);
        let mut decision = quota.take(now, &LIMIT, Reach::Store);
        while !matches!(decision, Decision::Ask(_)) {
            decision = quota.take(now, &LIMIT, Reach::Store);
        }

        let refused = quota.told(now, &LIMIT, false, LIMIT.rate.window);
        assert!(refused.is_err());

        let Decision::Made(Err(standing)) = quota.take(now, &LIMIT, Reach::Store) else {
            panic!("others have taken all of it")
        };
        assert_eq!((standing.left, standing.wait), (0, LIMIT.rate.interval()));
    }

    #[test]
    fn a_store_that_was_emptied_gives_no_quota_twice() {
        let now = Instant::now();
        let mut quota = Quota::new(now);
        for n in 0..1_000 {
            let verdict = match quota.take(now, &LIMIT, Reach::Store) {
                Decision::Ask(asked) => {
                    let mut store = Store(Level::whole(now));
                    let (granted, whole_in) = store.ask(now, asked.given);
                    quota.told(now, &LIMIT, granted, whole_in)
                }
                Decision::Made(verdict) => verdict,
            };
            assert_eq!(verdict.is_ok(), n < 200);
        }
    }

    #[test]
    fn a_store_that_does_not_answer_is_told_later() {
        let now = Instant::now();
        let mut quota = Quota::new(now);
        let mut questions = Vec::new();
        for _ in 0..10 {
            if let Decision::Ask(asked) = quota.take(now, &LIMIT, Reach::Store) {
                let _ = quota.untold(now, &LIMIT, asked);
                questions.push(asked.given);
            }
        }

        assert_eq!(questions, [4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn what_is_given_back_costs_nothing() {
        let now = Instant::now();
        let mut quota = Quota::new(now);
        for _ in 0..1_000 {
            let granted = quota.take(now, &LIMIT, Reach::Process);
            assert!(matches!(granted, Decision::Made(Ok(_))));
            quota.give_back(&LIMIT);
        }
    }
}
