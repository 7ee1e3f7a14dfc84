//! What [`super::Admission`] decides by: who is in, who waits, and for whom there is room. Knows no task and no lock.

use std::{collections::VecDeque, hash::Hash};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Config, Permit, Refusal,
    limiter::{Limiter, Sample, as_f64},
    saturation::Saturation,
    tenants::{Place, Tenants},
};
use crate::Criticality;

const LEVELS: usize = Criticality::ALL.len();
/// In an overload one in so many places is spared for callers who have not got their part.
const SPARED: usize = 8;

/// One request at the gate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor {
    pub(super) criticality: Criticality,
    pub(super) kind: usize,
    pub(super) place: Place,
}

/// A visitor in the queue.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) visitor: Visitor,
    pub(super) answer: oneshot::Sender<Permit>,
}

/// What becomes of a visitor.
pub(super) enum Verdict {
    Admitted,
    Queued {
        until: Instant,
        answer: oneshot::Receiver<Permit>,
    },
    Refused(Refusal),
}

/// How an admission stands. Arrays are in the order of [`Criticality::ALL`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// How much may be worked on at once.
    pub limit: usize,
    /// Latency by what is tolerated, lately: above 1 there was a queue.
    pub stretch: f64,
    /// What is wanted by what may be worked on at once, over about the last 15 s: 3 is three times as much.
    pub saturation: f64,
    /// Requests worked on.
    pub in_flight: [usize; LEVELS],
    /// Requests that wait.
    pub queued: [usize; LEVELS],
    /// Requests refused so far, by reason in the order of [`Refusal::ALL`].
    pub refused: [[u64; Refusal::ALL.len()]; LEVELS],
}

#[derive(Debug)]
pub(super) struct Gate {
    config: Config,
    shares: [f64; LEVELS],
    limiter: Limiter,
    tenants: Tenants,
    in_flight: [usize; LEVELS],
    /// The most that each level wanted at once, of late.
    wanted: [usize; LEVELS],
    queues: [VecDeque<Waiter>; LEVELS],
    /// When there was no room for sheddable work, and when critical work was lost for that.
    crowded: [Option<Crowded>; 2],
    refused: [[u64; Refusal::ALL.len()]; LEVELS],
    saturation: Saturation,
}

/// From the first to the last time, with no long pause between.
#[derive(Clone, Copy, Debug)]
struct Crowded {
    first: Instant,
    last: Instant,
}

impl Gate {
    pub(super) fn new(config: &Config, ceiling: usize) -> Self {
        Self {
            shares: config.shares.in_order(),
            limiter: Limiter::new(config, ceiling),
            tenants: Tenants::new(config.tenants_max),
            in_flight: [0; LEVELS],
            wanted: [0; LEVELS],
            queues: Default::default(),
            crowded: [None; 2],
            refused: Default::default(),
            saturation: Saturation::default(),
            config: config.clone(),
        }
    }

    pub(super) fn place(&self, criticality: Criticality, tenant: impl Hash) -> Place {
        self.tenants.place(is_critical(criticality), tenant)
    }

    pub(super) fn enter(&mut self, now: Instant, visitor: Visitor) -> Verdict {
        let level = visitor.criticality as usize;
        let is_critical = is_critical(visitor.criticality);
        self.saturation.note(now, self.fill());
        self.saturation.came();
        let has_room = self.is_next(level) && self.has_room(level);
        if !has_room && !is_critical {
            self.note_crowd(now, is_critical);
        }
        let is_overloaded = self.is_overloaded(now, is_critical);
        if is_overloaded && self.is_greedy(visitor) {
            self.note_crowd(now, is_critical);
            return self.refuse(visitor, Refusal::Unfair);
        }
        if has_room {
            self.begin(visitor);
            return Verdict::Admitted;
        }
        if is_overloaded && !is_critical || !self.has_place_to_wait(level) {
            self.note_crowd(now, is_critical);
            return self.refuse(visitor, Refusal::Full);
        }
        let (sender, answer) = oneshot::channel();
        self.queues[level].push_back(Waiter {
            visitor,
            answer: sender,
        });
        self.note_wanted(level);
        let until = now + self.config.queue_wait;
        Verdict::Queued { until, answer }
    }

    /// Ends a request, and gives those of the queue for whom there is room now.
    pub(super) fn leave(&mut self, now: Instant, visitor: Visitor, sample: &Sample) -> Vec<Waiter> {
        let in_flight = self.in_flight.iter().sum();
        self.saturation.note(now, self.fill());
        if self.limiter.record(now, in_flight, sample) {
            self.forget_what_was_wanted();
        }
        self.in_flight[visitor.criticality as usize] -= 1;
        self.tenants.end(visitor.place);
        self.next_ones()
    }

    /// Gives away the place of a request that is not worked on for the time being.
    pub(super) fn step_out(&mut self, now: Instant, visitor: Visitor) -> Vec<Waiter> {
        self.saturation.note(now, self.fill());
        self.in_flight[visitor.criticality as usize] -= 1;
        self.next_ones()
    }

    /// Counts it again, whether or not there is room: what was begun is finished.
    pub(super) fn step_in(&mut self, now: Instant, visitor: Visitor) {
        self.saturation.note(now, self.fill());
        self.in_flight[visitor.criticality as usize] += 1;
    }

    /// Those of the queue for whom there is room now; they count as begun.
    fn next_ones(&mut self) -> Vec<Waiter> {
        let mut waiters = Vec::new();
        for level in (0..LEVELS).rev() {
            while self.has_room(level) {
                let Some(waiter) = self.queues[level].pop_front() else {
                    break;
                };
                if !waiter.answer.is_closed() {
                    self.begin(waiter.visitor);
                    waiters.push(waiter);
                }
            }
        }
        waiters
    }

    /// Counts a waiter whose time was over.
    pub(super) fn gave_up(&mut self, now: Instant, criticality: Criticality) -> Refusal {
        self.note_crowd(now, is_critical(criticality));
        self.refused[criticality as usize][Refusal::Waited as usize] += 1;
        self.saturation.refused();
        Refusal::Waited
    }

    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        Snapshot {
            limit: self.limiter.limit(),
            stretch: self.limiter.stretch(),
            saturation: self.saturation.ratio(now, self.fill()),
            in_flight: self.in_flight,
            queued: std::array::from_fn(|level| self.queues[level].len()),
            refused: self.refused,
        }
    }

    /// Whether there is an overload of sheddable work, or of critical work.
    pub(super) fn is_overloaded_at_all(&self, now: Instant) -> bool {
        [false, true].map(|is_critical| self.is_overloaded(now, is_critical)) != [false; 2]
    }

    /// Whether its caller has its part already, and would take what is spared for those who have not.
    fn is_greedy(&self, visitor: Visitor) -> bool {
        let limit = self.limiter.limit();
        let taken: usize = self.in_flight.iter().sum();
        taken + limit.div_ceil(SPARED) >= limit && self.tenants.has_its_part(visitor.place, limit)
    }

    /// Whether nobody waits whose turn is before that of a newcomer of `level`.
    fn is_next(&self, level: usize) -> bool {
        let (own, higher) = (&self.queues[level], &self.queues[level + 1..]);
        let is_sure = self.in_flight[level] < self.share(level, self.limiter.limit());
        own.is_empty() && (is_sure || higher.iter().all(VecDeque::is_empty))
    }

    /// Whether one more of `level` may begin. It may up to its share in any case, and beyond it in what the others are not
    /// about to use of theirs.
    fn has_room(&self, level: usize) -> bool {
        let limit = self.limiter.limit();
        let taken: usize = self.in_flight.iter().sum();
        if taken >= limit || taken == 0 {
            return taken == 0;
        }
        let kept: usize = (0..LEVELS)
            .filter(|other| *other != level)
            .map(|other| {
                let sure = self.share(other, limit).min(self.wanted[other]);
                sure.saturating_sub(self.in_flight[other])
            })
            .sum();
        self.in_flight[level] < self.share(level, limit) || taken + kept < limit
    }

    fn share(&self, level: usize, limit: usize) -> usize {
        (self.shares[level] * as_f64(limit)) as usize
    }

    fn begin(&mut self, visitor: Visitor) {
        let level = visitor.criticality as usize;
        self.in_flight[level] += 1;
        self.tenants.begin(visitor.place);
        self.note_wanted(level);
    }

    fn refuse(&mut self, visitor: Visitor, refusal: Refusal) -> Verdict {
        self.refused[visitor.criticality as usize][refusal as usize] += 1;
        self.saturation.refused();
        Verdict::Refused(refusal)
    }

    /// The part of the places that is taken. What was begun before the limit was lowered is no more than full.
    fn fill(&self) -> f64 {
        let taken: usize = self.in_flight.iter().sum();
        (as_f64(taken) / as_f64(self.limiter.limit())).min(1.0)
    }

    fn note_wanted(&mut self, level: usize) {
        let wanted = self.in_flight[level] + self.queues[level].len();
        self.wanted[level] = self.wanted[level].max(wanted);
    }

    /// A share that is not used is lent out, a quarter of it with each window.
    fn forget_what_was_wanted(&mut self) {
        for level in 0..LEVELS {
            self.wanted[level] = self.wanted[level] * 3 / 4;
            self.note_wanted(level);
        }
    }

    /// A place is also that of one who waits no more.
    fn has_place_to_wait(&mut self, level: usize) -> bool {
        let queue = &mut self.queues[level];
        if queue.len() >= self.config.queue_max {
            queue.retain(|waiter| !waiter.answer.is_closed());
        }
        queue.len() < self.config.queue_max
    }

    fn note_crowd(&mut self, now: Instant, is_critical: bool) {
        let crowded = &mut self.crowded[usize::from(is_critical)];
        let first = crowded
            .filter(|crowded| now < crowded.last + self.config.overloaded_after)
            .map_or(now, |crowded| crowded.first);
        *crowded = Some(Crowded { first, last: now });
    }

    /// Whether there was a crowd again and again for as long as counts.
    fn is_overloaded(&self, now: Instant, is_critical: bool) -> bool {
        let after = self.config.overloaded_after;
        self.crowded[usize::from(is_critical)].is_some_and(|crowded| {
            now < crowded.last + after && crowded.last >= crowded.first + after
        })
    }
}

/// Whether it waits when there is no room, whatever the load.
fn is_critical(criticality: Criticality) -> bool {
    criticality >= Criticality::Critical
}
