//! What an admission promises, on simulated load, for several seeds each.

use std::{collections::VecDeque, time::Duration};

use fastrand::Rng;
use tokio::time::{Instant, advance};

use super::{
    Admission, Config, Entry, Outcome, Refusal, Shares,
    simulation::{Phase, Report, WORKERS, run},
};
use crate::Criticality;

const SEEDS: u64 = 2;

fn each_seed(phases: &[Phase], look: impl Fn(&[Report])) {
    for seed in 0..SEEDS {
        let reports = run(seed, &Config::default(), phases);
        for (phase, report) in phases.iter().zip(&reports) {
            println!(
                "seed {seed} load {:.1}x: goodput {:.2} critical {:?} sheddable {:?} greedy {:?} modest {:?} limits {:?}",
                phase.load,
                report.goodput(phase.length.as_secs_f64()),
                report.critical,
                report.sheddable,
                report.greedy,
                report.modest,
                report.limits.iter().step_by(20).collect::<Vec<_>>()
            );
        }
        look(&reports);
    }
}

#[test]
fn overloaded_it_does_as_much_as_it_can() {
    for load in [1.2, 1.5, 2.0, 4.0] {
        each_seed(&[Phase::new(3, load), Phase::new(6, load)], |reports| {
            assert!(
                reports[1].goodput(6.0) > 0.9,
                "{load}: {:?}",
                reports[1].critical
            );
        });
    }
}

#[test]
fn its_saturation_says_how_many_times_what_it_can_do_is_wanted() {
    for (load, critical) in [(0.5, 0.5), (1.5, 0.5), (3.0, 0.0), (3.0, 1.0)] {
        let phase = Phase {
            critical,
            ..Phase::new(30, load)
        };

        let reports = run(0, &Config::default(), &[phase, Phase::new(60, 0.1)]);

        let (loaded, calm) = (reports[0].saturation, reports[1].saturation);
        println!("{load}x, {critical} of it critical: saturation {loaded:.2}, then {calm:.2}");
        assert!(calm < 0.3, "a minute later it is still {calm}");
        if load < 1.0 {
            assert!(loaded < 0.7, "{loaded}");
        } else {
            assert!((load * 0.75..load * 1.3).contains(&loaded), "{loaded}");
        }
    }
}

#[test]
fn without_it_the_same_load_gets_next_to_nothing_done() {
    let config = Config {
        enabled: false,
        ..Config::default()
    };

    let reports = run(1, &config, &[Phase::new(5, 2.0), Phase::new(10, 2.0)]);

    let goodput = reports[1].goodput(10.0);
    println!("goodput without admission {goodput:.2}");
    assert!(goodput < 0.2, "{goodput}");
}

#[test]
fn a_mild_overload_does_not_drive_the_limit_up() {
    each_seed(
        &[Phase::new(5, 1.1), Phase::new(40, 1.1), Phase::new(60, 1.1)],
        |reports| {
            let (early, late) = (reports[1].limit_mean(), reports[2].limit_mean());
            println!("mean limit {early:.1}, later {late:.1}");
            assert!(
                late < 4.0 * WORKERS as f64 && late < 1.1 * early,
                "{early} {late}"
            );
        },
    );
}

/// Four times slower, so that a quarter of the load is all that can be done.
#[test]
fn work_that_becomes_slower_for_good_is_still_done() {
    let slow = Phase {
        slowness: 4.0,
        ..Phase::new(20, 0.3)
    };
    each_seed(&[Phase::new(10, 0.3), slow, slow], |reports| {
        let part = reports[2].goodput(20.0) / 0.25;
        println!("{part:.2} of what can be done");
        assert!(part > 0.6, "{part}");
    });
}

#[test]
fn timeouts_without_end_bring_the_limit_down_and_it_comes_back() {
    let stuck = Phase {
        slowness: 100.0,
        ..Phase::new(20, 1.0)
    };
    each_seed(
        &[
            Phase::new(5, 0.8),
            stuck,
            Phase::new(5, 0.8),
            Phase::new(5, 0.8),
        ],
        |reports| {
            let stuck = reports[1].limits.last().copied().unwrap_or_default();
            assert!(stuck <= 4, "{stuck}");
            let part = reports[3].critical.good_part();
            assert!(part > 0.95, "{part}");
        },
    );
}

#[test]
fn after_an_overload_all_is_well_within_seconds() {
    each_seed(
        &[
            Phase::new(5, 0.5),
            Phase::new(5, 10.0),
            Phase::new(5, 0.5),
            Phase::new(5, 0.5),
        ],
        |reports| {
            let part = reports[3].critical.good_part();
            assert!(part > 0.999, "{part}");
        },
    );
}

#[test]
fn critical_work_is_done_while_sheddable_work_is_refused() {
    for load in [1.5, 2.0] {
        let mixed = Phase {
            critical: 0.4,
            ..Phase::new(10, load)
        };
        each_seed(&[mixed, mixed], |reports| {
            let Report {
                critical,
                sheddable,
                ..
            } = &reports[1];
            assert!(critical.good_part() >= 0.995, "{critical:?}");
            assert!(sheddable.refused > sheddable.sent / 4, "{sheddable:?}");
        });
    }
}

#[test]
fn a_greedy_caller_does_not_crowd_out_the_modest() {
    let crowded = Phase {
        greedy: 0.9,
        critical: 0.0,
        ..Phase::new(10, 4.0)
    };
    each_seed(&[crowded, crowded], |reports| {
        let Report { greedy, modest, .. } = &reports[1];
        assert!(modest.good_part() > 0.9, "{modest:?} {greedy:?}");
        assert!(reports[1].goodput(10.0) > 0.85);
    });
}

/// An admission of one request at a time.
fn of_one() -> Admission {
    let config = Config {
        limit_initial: 1,
        limit_max: 1,
        limit_min: 1,
        ..Config::default()
    };
    Admission::new(&config, 1)
}

fn enter(admission: &Admission) -> Entry {
    admission.enter(Criticality::Critical, 0, "one")
}

#[tokio::test(start_paused = true)]
async fn a_place_given_to_one_who_has_left_is_given_to_the_next() {
    let admission = of_one();
    let Entry::Admitted(first) = enter(&admission) else {
        panic!("there was room");
    };
    let (gone, leaving, next) = (enter(&admission), enter(&admission), enter(&admission));
    let (Entry::Queued(leaving), Entry::Queued(next)) = (leaving, next) else {
        panic!("there was no room");
    };

    drop(gone);
    first.finish(Outcome::Done);
    // Told by now that it may begin, but it has never looked.
    drop(leaving);

    let soon = Instant::now() + Duration::from_millis(1);
    assert!(next.admitted(soon).await.is_ok());
    assert_eq!(admission.snapshot().in_flight, [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn one_who_waits_is_refused_in_time_and_counted() {
    let admission = of_one();
    let _first = enter(&admission);
    let Entry::Queued(second) = enter(&admission) else {
        panic!("there was no room");
    };
    let begun = Instant::now();

    let refusal = second.admitted(begun + Duration::from_secs(9)).await;

    assert_eq!(refusal.unwrap_err(), Refusal::Waited);
    assert!(begun.elapsed() <= Config::default().queue_wait + Duration::from_millis(1));
    assert_eq!(admission.snapshot().refused[2], [0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_criticality_gets_its_share_however_much_the_others_want() {
    let config = Config {
        limit_initial: 10,
        limit_max: 10,
        shares: Shares {
            critical_plus: 0.0,
            critical: 0.0,
            sheddable_plus: 0.0,
            sheddable: 0.2,
        },
        ..Config::default()
    };
    let admission = Admission::new(&config, 10);
    let enter = |criticality| admission.enter(criticality, 0, "one");
    let shown: Vec<_> = (0..2).map(|_| enter(Criticality::Sheddable)).collect();
    drop(shown);

    let critical: Vec<_> = (0..20).map(|_| enter(Criticality::Critical)).collect();

    let admitted = |entry: &&Entry| matches!(entry, Entry::Admitted(_));
    assert_eq!(critical.iter().filter(admitted).count(), 8);
    assert!(matches!(
        enter(Criticality::SheddablePlus),
        Entry::Queued(_)
    ));
    let sheddable = [Criticality::Sheddable; 3].map(enter);
    assert_eq!(sheddable.iter().filter(admitted).count(), 2);
}

/// Whoever comes, ends well or badly, or goes away while it works or waits.
#[tokio::test(start_paused = true)]
async fn no_order_of_events_moves_the_limit_out_of_its_bounds_or_loses_a_place() {
    const CEILING: usize = 20;
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        fastrand::seed(seed);
        let config = Config {
            limit_min: 2,
            limit_initial: 10,
            delay_tolerated: Duration::from_millis(rng.u64(..2)),
            window: Duration::from_millis(10),
            window_samples_min: 5,
            ..Config::default()
        };
        let admission = Admission::new(&config, CEILING);
        let (mut working, mut waiting) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            match rng.u8(..8) {
                0..=3 => match admission.enter(
                    rng.choice(Criticality::ALL).unwrap(),
                    rng.usize(..2),
                    rng.u8(..3),
                ) {
                    Entry::Admitted(permit) => working.push(permit),
                    Entry::Queued(queued) => waiting.push(queued),
                    Entry::Refused(_) => {}
                },
                4..=5 if !working.is_empty() => {
                    let permit = working.swap_remove(rng.usize(..working.len()));
                    let outcomes = [Outcome::Done, Outcome::Failed, Outcome::TimedOut];
                    permit.finish(rng.choice(outcomes).unwrap());
                }
                6 if !working.is_empty() => drop(working.swap_remove(rng.usize(..working.len()))),
                6 if !waiting.is_empty() => drop(waiting.swap_remove(rng.usize(..waiting.len()))),
                _ if !waiting.is_empty() => {
                    let queued = waiting.swap_remove(rng.usize(..waiting.len()));
                    let soon = Instant::now() + Duration::from_millis(4);
                    working.extend(queued.admitted(soon).await.ok());
                }
                _ => advance(Duration::from_millis(rng.u64(..20))).await,
            }
            let limit = admission.snapshot().limit;
            assert!((2..=CEILING).contains(&limit), "seed {seed}: {limit}");
            assert!(working.len() <= CEILING, "seed {seed}: {}", working.len());
        }
        drop((working, waiting));

        assert_eq!(admission.snapshot().in_flight, [0; 4], "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_another_service_leaves_its_place_to_the_next() {
    let admission = of_one();
    let Entry::Admitted(first) = enter(&admission) else {
        panic!("there was room");
    };
    let Entry::Queued(second) = enter(&admission) else {
        panic!("there was no room");
    };
    let absence = first.absence();

    let (one, other) = (absence.begin(), absence.begin());
    let soon = Instant::now() + Duration::from_millis(1);
    let second = second.admitted(soon).await;
    assert!(second.is_ok());
    drop((one, other));
    assert_eq!(admission.snapshot().in_flight.iter().sum::<usize>(), 2);

    drop((first, second));
    assert_eq!(admission.snapshot().in_flight, [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn what_a_request_leaves_behind_waits_on_nobodys_account() {
    let admission = of_one();
    let Entry::Admitted(permit) = enter(&admission) else {
        panic!("there was room");
    };
    let absence = permit.absence();

    let absent = absence.begin();
    drop(permit);
    drop(absent);
    drop(absence.begin());

    assert_eq!(admission.snapshot().in_flight, [0; 4]);
}

/// Some work of its own, and beside it some that waits for two seconds and fails.
#[tokio::test(start_paused = true)]
async fn another_service_that_hangs_does_not_lower_the_limit() {
    let config = Config {
        limit_initial: 8,
        ..Config::default()
    };
    let admission = Admission::new(&config, 8);
    let admitted = || match enter(&admission) {
        Entry::Admitted(permit) => permit,
        Entry::Queued(_) | Entry::Refused(_) => panic!("there was room"),
    };
    let mut waiting = VecDeque::new();
    for _ in 0..1_000 {
        let hanging = admitted();
        waiting.push_back((hanging.absence().begin(), hanging));
        let own: Vec<_> = (0..6).map(|_| admitted()).collect();
        tokio::time::advance(Duration::from_millis(10)).await;
        own.into_iter().for_each(|own| own.finish(Outcome::Done));
        if waiting.len() > 200
            && let Some((absent, permit)) = waiting.pop_front()
        {
            drop(absent);
            permit.finish(Outcome::Failed);
        }
    }

    assert!(
        admission.snapshot().limit >= 8,
        "{:?}",
        admission.snapshot()
    );
}
