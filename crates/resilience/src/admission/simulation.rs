//! A service before which an admission stands, on a clock that is not the wall's: some workers, a queue before them, and
//! requests that arrive whether or not the earlier ones are done.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{
    sync::Semaphore,
    task::{JoinSet, LocalSet},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{Admission, Config, Entry, Outcome};
use crate::Criticality;

/// Workers of the service.
pub const WORKERS: usize = 16;
/// What one request keeps a worker busy for.
pub const WORK: Duration = Duration::from_millis(20);
/// Requests per second that this makes.
pub const CAPACITY: f64 = 800.0;
/// When an answer is of no use any more.
const DEADLINE: Duration = Duration::from_millis(200);

/// What happens for a while.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    pub length: Duration,
    /// Requests that arrive, by what the service can do.
    pub load: f64,
    /// How many times longer the work takes.
    pub slowness: f64,
    /// The part of the requests that is critical; the rest is sheddable.
    pub critical: f64,
    /// The part of the requests that is one caller's; the rest is of ten others.
    pub greedy: f64,
}

impl Phase {
    pub fn new(seconds: u64, load: f64) -> Self {
        Self {
            length: Duration::from_secs(seconds),
            load,
            slowness: 1.0,
            critical: 1.0,
            greedy: 0.0,
        }
    }
}

/// What became of some requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub sent: u32,
    pub good: u32,
    pub late: u32,
    pub refused: u32,
}

impl Tally {
    /// The part of the requests that was answered in time.
    pub fn good_part(&self) -> f64 {
        f64::from(self.good) / f64::from(self.sent)
    }
}

/// What became of the requests of one phase, or of a part of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub critical: Tally,
    pub sheddable: Tally,
    pub greedy: Tally,
    pub modest: Tally,
    /// The limit at the end of each tenth of a second.
    pub limits: Vec<usize>,
    /// How much more was wanted than there was, at the end.
    pub saturation: f64,
}

impl Report {
    /// What was answered in time, by what the service can do in `seconds`.
    pub fn goodput(&self, seconds: f64) -> f64 {
        f64::from(self.critical.good + self.sheddable.good) / (CAPACITY * seconds)
    }

    pub fn limit_mean(&self) -> f64 {
        self.limits.iter().sum::<usize>() as f64 / self.limits.len() as f64
    }
}

/// Runs `phases` one after the other; a report of each.
pub fn run(seed: u64, config: &Config, phases: &[Phase]) -> Vec<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    LocalSet::new().block_on(&runtime, async {
        let service = Service {
            admission: Admission::new(config, 1024),
            is_guarded: config.enabled,
            workers: Arc::new(Semaphore::new(WORKERS)),
        };
        let mut random = Rng::with_seed(seed);
        let mut reports = Vec::new();
        for phase in phases {
            reports.push(service.bear(&mut random, *phase).await);
        }
        reports
    })
}

#[derive(Clone)]
struct Service {
    admission: Admission,
    is_guarded: bool,
    workers: Arc<Semaphore>,
}

impl Service {
    async fn bear(&self, random: &mut Rng, phase: Phase) -> Report {
        let report = Rc::new(RefCell::new(Report::default()));
        let mut requests = JoinSet::new();
        let end = Instant::now() + phase.length;
        let mut next_look = Instant::now();
        let mut arrival = Instant::now();
        while arrival < end {
            sleep_until(arrival).await;
            while requests.try_join_next().is_some() {}
            if arrival >= next_look {
                let limit = self.admission.snapshot().limit;
                report.borrow_mut().limits.push(limit);
                next_look += Duration::from_millis(100);
            }
            let is_critical = random.f64() < phase.critical;
            let is_greedy = random.f64() < phase.greedy;
            let tenant = if is_greedy { 0 } else { random.u8(1..=10) };
            // Exponential, like the time between calls that know nothing of each other; and work that differs by half.
            let pause = -random.f64().max(1e-9).ln() / (phase.load * CAPACITY);
            let work = WORK.mul_f64(phase.slowness * (0.5 + random.f64()));
            let (service, report) = (self.clone(), Rc::clone(&report));
            requests.spawn_local(async move {
                let criticality = if is_critical {
                    Criticality::Critical
                } else {
                    Criticality::Sheddable
                };
                let outcome = service.answer(criticality, tenant, work).await;
                let mut report = report.borrow_mut();
                let report = &mut *report;
                let by_level = if is_critical {
                    &mut report.critical
                } else {
                    &mut report.sheddable
                };
                let by_tenant = if is_greedy {
                    &mut report.greedy
                } else {
                    &mut report.modest
                };
                for tally in [by_level, by_tenant] {
                    tally.sent += 1;
                    match outcome {
                        Some(Outcome::Done) => tally.good += 1,
                        Some(_) => tally.late += 1,
                        None => tally.refused += 1,
                    }
                }
            });
            arrival += Duration::from_secs_f64(pause);
        }
        let mut tally = report.borrow().clone();
        tally.saturation = self.admission.snapshot().saturation;
        requests.detach_all();
        tally
    }

    /// None: refused.
    async fn answer(
        &self,
        criticality: Criticality,
        tenant: u8,
        work: Duration,
    ) -> Option<Outcome> {
        let deadline = Instant::now() + DEADLINE;
        if !self.is_guarded {
            return Some(self.work(work, deadline).await);
        }
        let permit = match self.admission.enter(criticality, 0, tenant) {
            Entry::Admitted(permit) => permit,
            Entry::Queued(queued) => queued.admitted(deadline).await.ok()?,
            Entry::Refused(_) => return None,
        };
        let outcome = self.work(work, deadline).await;
        permit.finish(outcome);
        Some(outcome)
    }

    async fn work(&self, work: Duration, deadline: Instant) -> Outcome {
        let busy = async {
            let _worker = self.workers.acquire().await;
            sleep(work).await;
        };
        match timeout_at(deadline, busy).await {
            Ok(()) => Outcome::Done,
            Err(_) => Outcome::TimedOut,
        }
    }
}
