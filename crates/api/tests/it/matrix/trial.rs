//! Has one fault befall one dependency, and asks each route meanwhile.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::{
    axes::{Dependency, Fault, Route},
    expected::{Cell, Expected, Matrix},
    rig::Rig,
};
use crate::{
    service::PATIENCE,
    told::{self, Names},
    wire::Reply,
};

/// Requests to each route from the moment when a fault begins, at least, and then when it is known.
const ONSET: usize = 5;
const KNOWN: usize = 6;
/// Requests to each route while a dependency comes and goes, and the pause between them: out of step with it.
const UNSTEADY: usize = 14;
const PAUSE: Duration = Duration::from_millis(230);
/// A replica that was taken out again and again stays out for half a minute.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// What became of one fault.
pub struct Episode {
    pub dependency: Dependency,
    pub fault: Fault,
    /// How long it took until `/ready` named what is missing. None where nothing is, or nothing stays.
    pub noticed: Option<Duration>,
    /// How long after the fault every route did again as if nothing had been.
    pub back: Option<Duration>,
    pub outcomes: Vec<Outcome>,
    /// What concerns no single route: places of what is degraded that contradict each other, and a fault that does not end.
    pub differs: Vec<String>,
}

/// What became of one cell.
pub struct Outcome {
    pub cell: Cell,
    pub statuses: BTreeMap<u16, usize>,
    pub p50: Duration,
    pub max: Duration,
    pub labels: Names,
    pub differs: Vec<String>,
}

impl Episode {
    /// Everything that is not as expected, with where it was seen.
    pub fn differences(&self) -> Vec<String> {
        let Self {
            dependency, fault, ..
        } = self;
        let cells = self.outcomes.iter().flat_map(|outcome| {
            let route = outcome.cell.route;
            let differs = outcome.differs.iter();
            differs.map(move |what| format!("{dependency}, {fault}, {route}: {what}"))
        });
        let whole = self.differs.iter();
        let whole = whole.map(|what| format!("{dependency}, {fault}: {what}"));
        cells.chain(whole).collect()
    }
}

/// One request that was made.
struct Answer {
    /// None when there was no answer.
    reply: Option<Reply>,
    took: Duration,
    /// Whether the fault was known by then, and lasted.
    is_known: bool,
}

impl Answer {
    /// 0 when there was none.
    fn status(&self) -> u16 {
        self.reply.as_ref().map_or(0, |reply| reply.status)
    }

    fn labels(&self) -> Names {
        self.reply.as_ref().map(told::header).unwrap_or_default()
    }

    /// What of it is not as expected.
    fn differs(&self, cell: &Cell, slack: Duration) -> Option<String> {
        let Expected {
            statuses,
            within,
            labels,
        } = &cell.expected;
        let said = self.labels();
        let is_said = match self.is_known && cell.fault.is_steady() {
            true => said == *labels,
            false => said.is_subset(labels),
        };
        let without_retry = self.status() == 503 && !may_be_retried(self.reply.as_ref()?);
        if !statuses.contains(&self.status()) {
            Some(format!("answered {}", self.status()))
        } else if without_retry {
            Some("refused without a problem or `Retry-After`".to_owned())
        } else if self.took > *within + slack {
            Some(format!("took {:?}", self.took))
        } else if !is_said {
            Some(format!("says {said:?}"))
        } else {
            None
        }
    }
}

fn may_be_retried(reply: &Reply) -> bool {
    let is_problem = reply.header("content-type") == Some("application/problem+json");
    is_problem && reply.header("retry-after").is_some()
}

/// How long each route takes while all is well: the median.
pub async fn well(rig: &Rig, matrix: &Matrix) -> BTreeMap<Route, Duration> {
    let mut well = BTreeMap::new();
    // A new process opens its connections first, and on a busy machine that may be too late for a request.
    let is_well = until(PATIENCE, async || {
        let asked = matrix.well.iter().map(async |(route, expected)| {
            let answers = ask(rig, *route, KNOWN, true).await;
            let mut statuses = answers.iter().map(Answer::status);
            let is_well = statuses.all(|status| expected.statuses.contains(&status));
            (is_well, *route, median(&answers))
        });
        let asked = join_all(asked).await;
        well = asked.iter().map(|(_, route, p50)| (*route, *p50)).collect();
        asked.iter().all(|(is_well, ..)| *is_well)
    });
    assert!(is_well.await, "not well before any fault");
    well
}

/// The cells are all of one fault.
pub async fn trial(rig: &Rig, matrix: &Matrix, cells: &[&Cell]) -> Episode {
    let Cell {
        dependency, fault, ..
    } = *cells[0];
    let proxy = rig.proxy(dependency);
    fault.begin(proxy).await;
    let asked = async {
        let (answers, noticed) = match fault.is_steady() {
            true => ask_twice(rig, cells).await,
            false => (ask_all(rig, cells, UNSTEADY).await, None),
        };
        let differs = agree(rig, fault, &answers).await;
        (answers, noticed, differs)
    };
    let (answers, noticed, mut differs) = tokio::select! {
        asked = asked => asked,
        never = fault.go_on(proxy) => match never {},
    };
    proxy.clear().await;
    let mut outcomes = Vec::new();
    for (cell, answers) in cells.iter().zip(answers) {
        outcomes.push(judge(rig, matrix, cell, &answers).await);
    }
    let back = come_back(rig, matrix, &outcomes).await;
    if back.is_none() {
        differs.push(format!("not as before {BACK_WITHIN:?} after it"));
    }
    Episode {
        dependency,
        fault,
        noticed,
        back,
        outcomes,
        differs,
    }
}

/// From when the fault begins until it is known, and then again.
async fn ask_twice(rig: &Rig, cells: &[&Cell]) -> (Vec<Vec<Answer>>, Option<Duration>) {
    let (begun, is_over) = (Instant::now(), AtomicBool::new(false));
    let standing = standing(cells.iter().map(|cell| &cell.expected.labels));
    let onset = cells.iter().map(async |cell| {
        let mut answers = ask(rig, cell.route, ONSET, false).await;
        // Some faults are known only by the requests that fail.
        while !is_over.load(Ordering::Relaxed) {
            sleep(PAUSE).await;
            answers.extend(ask(rig, cell.route, 1, false).await);
        }
        answers
    });
    let noticed = async {
        let is_noticed = until(PATIENCE, async || {
            told::readiness(&rig.service).await.is_superset(&standing)
        });
        let noticed = is_noticed.await.then(|| begun.elapsed());
        is_over.store(true, Ordering::Relaxed);
        noticed
    };
    let (mut answers, noticed) = tokio::join!(join_all(onset), noticed);
    let known = cells.iter().map(|cell| ask(rig, cell.route, KNOWN, true));
    for (answers, known) in answers.iter_mut().zip(join_all(known).await) {
        answers.extend(known);
    }
    (answers, noticed.filter(|_| !standing.is_empty()))
}

async fn ask_all(rig: &Rig, cells: &[&Cell], times: usize) -> Vec<Vec<Answer>> {
    let routes = cells.iter().map(async |cell| {
        let mut answers = Vec::new();
        for _ in 0..times {
            answers.extend(ask(rig, cell.route, 1, true).await);
            sleep(PAUSE).await;
        }
        answers
    });
    join_all(routes).await
}

async fn ask(rig: &Rig, route: Route, times: usize, is_known: bool) -> Vec<Answer> {
    let mut answers = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        let reply = route.ask(rig).await;
        let took = begun.elapsed();
        answers.push(Answer {
            reply,
            took,
            is_known,
        });
    }
    answers
}

/// What every answer is to say, whatever the route.
fn standing<'a>(mut labels: impl Iterator<Item = &'a Names>) -> Names {
    let first = labels.next().cloned().unwrap_or_default();
    labels.fold(first, |all, labels| &all & labels)
}

/// Compares the probe with the metric, and both with what answers have just said.
async fn agree(rig: &Rig, fault: Fault, answers: &[Vec<Answer>]) -> Vec<String> {
    let known = answers.iter().flatten();
    let known = known.filter(|answer| answer.is_known && fault.is_steady());
    let said: Names = known.flat_map(Answer::labels).collect();
    let mut differs = Vec::new();
    let (mut ready, mut active) = (Names::new(), Names::new());
    // They are asked one after the other, and what is so may change between.
    let agreed = until(PATIENCE, async || {
        ready = told::readiness(&rig.service).await;
        (_, active) = told::metric(&rig.service).await;
        ready == active
    });
    if !agreed.await {
        differs.push(format!("/ready says {ready:?}, the metric {active:?}"));
    }
    if !active.is_superset(&said) {
        differs.push(format!("the metric says {active:?}, answers {said:?}"));
    }
    differs
}

async fn judge(rig: &Rig, matrix: &Matrix, cell: &Cell, answers: &[Answer]) -> Outcome {
    let mut outcome = Outcome {
        cell: cell.clone(),
        statuses: BTreeMap::new(),
        p50: median(answers),
        max: answers.iter().map(|answer| answer.took).max().unwrap(),
        labels: Names::new(),
        differs: Vec::new(),
    };
    for answer in answers {
        *outcome.statuses.entry(answer.status()).or_default() += 1;
        outcome.labels.extend(answer.labels());
        outcome.differs.extend(answer.differs(cell, matrix.slack));
        if let Some(reply) = &answer.reply {
            let logged = told::log(&rig.service, reply).await;
            if logged != answer.labels() {
                outcome.differs.push(format!(
                    "says {:?}, but {logged:?} in the log",
                    answer.labels()
                ));
            }
        }
    }
    outcome.differs.sort();
    outcome.differs.dedup();
    outcome
}

/// Waits until every route does as while all is well: some dependencies are found back only by requests.
async fn come_back(rig: &Rig, matrix: &Matrix, outcomes: &[Outcome]) -> Option<Duration> {
    let begun = Instant::now();
    let spans_bytes = rig.spans_bytes();
    let is_back = until(BACK_WITHIN, async || {
        let asked = outcomes
            .iter()
            .map(|outcome| ask(rig, outcome.cell.route, 1, false));
        let mut is_well = rig.spans_bytes() > spans_bytes;
        for (outcome, answers) in outcomes.iter().zip(join_all(asked).await) {
            let well = &matrix.well[&outcome.cell.route].statuses;
            let is_as_well = |answer: &Answer| well.contains(&answer.status());
            is_well &= answers
                .iter()
                .all(|answer| is_as_well(answer) && answer.labels().is_empty());
        }
        is_well
    });
    is_back.await.then(|| begun.elapsed())
}

/// Waits for a condition; whether it came true in time.
async fn until(patience: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !condition().await {
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(20)).await;
    }
    true
}

fn median(answers: &[Answer]) -> Duration {
    let mut took: Vec<_> = answers.iter().map(|answer| answer.took).collect();
    took.sort();
    took[(took.len() - 1) / 2]
}
