//! Claims jobs and has them run.
//!
//! A claim is one short statement that takes as many as there are places for, and no transaction is open while a job runs. It looks
//! at kinds by criticality, and so would never come to the lower ones while there is more of the higher than can be done. Hence two
//! guarantees, neither of which depends on how old jobs are: of all places some are for the critical only, however many others
//! run; and every few claims begin with a lower level, so that each level gets its share of claims. Ageing would give them a share
//! too, but with an old backlog it puts fifty thousand old jobs for analytics before one new payment.

use std::sync::Arc;
use std::time::Duration;

use data::Error;
use data::postgres::{Consistency, Positions};
use resilience::Criticality;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::attempt;
use crate::config::Config;
use crate::registry::Kind;
use crate::runner::Shared;
use crate::store::{self, Claimed, Menu};

/// The two lanes, as the statement numbers them.
const LANES: [Lane; 2] = [Lane::Critical, Lane::Expendable];

/// So much sooner is looked again after something was found.
const LOOK_AGAIN: u32 = 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Critical,
    Expendable,
}

impl Lane {
    fn of(criticality: Criticality) -> Self {
        match criticality {
            Criticality::Critical | Criticality::CriticalPlus => Self::Critical,
            Criticality::Sheddable | Criticality::SheddablePlus => Self::Expendable,
        }
    }
}

/// Claims until `stop`. What was claimed is then in `shared.tasks`.
pub(crate) async fn claim(shared: &Arc<Shared>, stop: &CancellationToken) {
    let mut turn = 0_u32;
    let mut has_failed = false;
    while !stop.is_cancelled() {
        let (config, kinds) = (&shared.config, &shared.registry.kinds);
        let running = shared.held.running();
        let menu = menu(config, kinds, &running, shared.held.room(), turn);
        if menu.limit == 0 {
            stop.run_until_cancelled(shared.held.freed()).await;
            continue;
        }
        turn = turn.wrapping_add(1);
        // Not given up halfway: what a claim takes would be nobody's until the lease ends.
        let taken = match take(shared, &menu, stop).await {
            Ok(taken) => taken,
            Err(error) => {
                if !has_failed {
                    tracing::warn!(%error, "jobs cannot be claimed");
                }
                has_failed = true;
                stop.run_until_cancelled(sleep(config.poll_pause())).await;
                continue;
            }
        };
        has_failed = false;
        if taken == 0 || !menu.may_have_left(taken) {
            let pause = match taken {
                0 => config.poll_pause(),
                // Not everybody who enqueues says so while others do.
                _ => config.poll_pause() / LOOK_AGAIN,
            };
            stop.run_until_cancelled(wait(shared, &menu, pause)).await;
        }
    }
}

/// Waits until there may be something to claim.
async fn wait(shared: &Shared, menu: &Menu, pause: Duration) {
    let freed = async {
        match menu.kinds.len() < shared.registry.kinds.len() {
            true => shared.held.freed().await,
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        () = shared.wake.notified() => {}
        () = freed => {}
        () = sleep(pause) => {}
    }
}

/// Claims what is on the menu, and has it run; how many that were.
async fn take(shared: &Arc<Shared>, menu: &Menu, stop: &CancellationToken) -> Result<usize, Error> {
    let (config, begun) = (&shared.config, Instant::now());
    let seen = Consistency::default();
    let db = shared.clusters.db(begun + config.patience());
    let home = db.consistent(seen.clone()).write();
    let claimed = store::claim(&home, menu, config.lease).await;
    let took = begun.elapsed();
    shared.metrics.claim.observe(took.as_secs_f64());
    let claimed = claimed?;
    if stop.is_cancelled() {
        shared.stopping.cancel();
    }
    let (taken, seen) = (claimed.len(), seen.seen());
    for job in claimed {
        start(shared, job, seen, begun + config.lease);
    }
    Ok(taken)
}

fn start(shared: &Arc<Shared>, job: Claimed, seen: Positions, until: Instant) {
    let mut kinds = shared.registry.kinds.iter();
    let Some(kind) = kinds.position(|kind| kind.name == job.kind) else {
        return tracing::error!(job.kind, "a job was claimed that is on no menu");
    };
    let hold = shared.held.add((job.id, job.fence), kind, until);
    let shared = Arc::clone(shared);
    let tasks = shared.tasks.clone();
    tasks.spawn(async move { attempt::run(&shared, kind, job, hold, &seen).await });
}

/// What may be claimed now: every kind that there is a place for, in the order of this turn.
fn menu(config: &Config, kinds: &[Kind], running: &[usize], room: usize, turn: u32) -> Menu {
    let criticality = |kind: usize| kinds[kind].options.criticality;
    let is_expendable = |kind: &usize| Lane::of(criticality(*kind)) == Lane::Expendable;
    let expendable: usize = (0..kinds.len())
        .filter(is_expendable)
        .map(|kind| running[kind])
        .sum();
    let lane_free = |lane| match lane {
        Lane::Critical => room,
        Lane::Expendable => room.min(config.expendable_max.saturating_sub(expendable)),
    };

    let first = first(kinds, config.turn_every, turn);
    let rank = |criticality: Criticality| (Some(criticality) == first, criticality);
    let mut order: Vec<usize> = (0..kinds.len()).collect();
    order.sort_by_key(|kind| std::cmp::Reverse(rank(criticality(*kind))));
    let mut lanes = LANES;
    lanes.sort_by_key(|lane| first.is_some_and(|first| Lane::of(first) != *lane));

    let mut menu = Menu::default();
    for lane in lanes {
        menu.lane_free.push(bounded(lane_free(lane)));
    }
    for kind in order {
        let lane = Lane::of(criticality(kind));
        let Kind {
            name,
            version,
            options,
            ..
        } = &kinds[kind];
        let free = options.at_once.saturating_sub(running[kind]);
        let free = free.min(lane_free(lane));
        if free > 0 {
            menu.kinds.push(name);
            menu.versions.push(*version);
            menu.free.push(bounded(free));
            let number = lanes.iter().position(|other| *other == lane);
            menu.lanes.push(bounded(number.unwrap_or_default()) + 1);
        }
    }
    menu.limit = match menu.kinds.is_empty() {
        true => 0,
        false => room as i64,
    };
    menu
}

/// The level that this turn begins with, if it is not the highest.
fn first(kinds: &[Kind], every: u32, turn: u32) -> Option<Criticality> {
    if turn % every != every - 1 {
        return None;
    }
    let levels = || kinds.iter().map(|kind| kind.options.criticality);
    let highest = levels().max()?;
    let is_lower = |level: &Criticality| *level < highest && levels().any(|one| one == *level);
    let lower: Vec<_> = Criticality::ALL.into_iter().filter(is_lower).collect();
    let nth = (turn / every) as usize;
    lower.get(nth % lower.len().max(1)).copied()
}

fn bounded(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

impl Menu {
    /// Whether a claim of so many may have been stopped by the menu, and not by there being no more.
    fn may_have_left(&self, taken: usize) -> bool {
        let taken = bounded(taken);
        let bounds = self.free.iter().chain(&self.lane_free);
        i64::from(taken) >= self.limit || bounds.into_iter().any(|free| taken >= *free)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::job::{Options, Outcome};

    fn kinds() -> Vec<Kind> {
        let kind = |(name, criticality, at_once)| Kind {
            name,
            version: 1,
            options: Options {
                criticality,
                at_once,
                ..Options::DEFAULT
            },
            run: Arc::new(|_, _, _| Box::pin(async { Ok(Outcome::Done) })),
        };
        let kinds = [
            ("report", Criticality::Sheddable, 10),
            ("payment", Criticality::CriticalPlus, 10),
            ("resize", Criticality::SheddablePlus, 2),
            ("mail", Criticality::Critical, 10),
        ];
        kinds.map(kind).into()
    }

    fn config() -> Config {
        Config {
            concurrency: 8,
            expendable_max: 6,
            turn_every: 4,
            ..Config::default()
        }
    }

    #[test]
    fn kinds_go_by_criticality_and_each_lower_level_is_first_in_its_turn() {
        let kinds = kinds();
        let firsts: Vec<_> = (0..16)
            .map(|turn| menu(&config(), &kinds, &[0; 4], 8, turn))
            .map(|menu| (menu.kinds[0], menu.lanes[0]))
            .collect();

        assert_eq!(firsts[..4].concat_names(), "payment payment payment report");
        let turned: Vec<_> = firsts.iter().skip(3).step_by(4).copied().collect();
        assert_eq!(turned.concat_names(), "report resize mail report");
        assert!(firsts.iter().all(|(_, lane)| *lane == 1), "{firsts:?}");
    }

    trait Names {
        fn concat_names(&self) -> String;
    }

    impl Names for [(&'static str, i32)] {
        fn concat_names(&self) -> String {
            let names: Vec<_> = self.iter().map(|(name, _)| *name).collect();
            names.join(" ")
        }
    }

    #[test]
    fn the_expendable_leave_places_to_the_critical_and_a_kind_keeps_to_its_own() {
        let kinds = kinds();

        let some_left = menu(&config(), &kinds, &[3, 0, 2, 0], 3, 0);
        let none_left = menu(&config(), &kinds, &[5, 0, 1, 0], 2, 0);
        let full = menu(&config(), &kinds, &[4, 0, 2, 2], 0, 0);

        assert_eq!(some_left.kinds, ["payment", "mail", "report"]);
        assert_eq!(some_left.free, [3, 3, 1]);
        assert_eq!((some_left.lane_free, some_left.limit), (vec![3, 1], 3));
        assert_eq!(none_left.kinds, ["payment", "mail"]);
        assert_eq!(full.limit, 0);
    }
}
