//! Every order in which two threads may come to a breaker. Built and run by `make chaos` only.

use std::time::Duration;

use loom::{
    model,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{Breaker, Config, State};

/// The first failure opens it, and its time has passed at once: no clock decides what happens.
fn breaker() -> Breaker {
    let config = Config {
        failures_in_row: 1,
        open_min: Duration::ZERO,
        open_max: Duration::ZERO,
        ..Config::default()
    };
    Breaker::new(&config, |_| {})
}

fn fail(breaker: &Breaker) {
    if let Ok(permit) = breaker.enter() {
        permit.record(false, Duration::ZERO);
    }
}

#[test]
fn of_two_callers_one_is_the_probe_and_its_place_is_given_back() {
    model(|| {
        let breaker = breaker();
        fail(&breaker);
        let probing = Arc::new(AtomicUsize::new(0));
        let call = {
            let (breaker, probing) = (breaker.clone(), Arc::clone(&probing));
            move || {
                if let Ok(permit) = breaker.enter() {
                    assert!(permit.is_probe());
                    assert_eq!(probing.fetch_add(1, Ordering::SeqCst), 0);
                    probing.fetch_sub(1, Ordering::SeqCst);
                }
            }
        };

        let other = thread::spawn(call.clone());
        call();
        other.join().unwrap();

        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(breaker.enter().unwrap().is_probe());
    });
}

#[test]
fn a_call_from_before_never_decides_in_the_place_of_the_probe() {
    model(|| {
        let breaker = breaker();
        let early = breaker.clone();
        let other = thread::spawn(move || match early.enter() {
            Ok(permit) if !permit.is_probe() => permit.record(true, Duration::ZERO),
            Ok(_) | Err(_) => {}
        });
        fail(&breaker);
        let probe = breaker.enter().ok().filter(|permit| permit.is_probe());
        other.join().unwrap();

        if probe.is_some() {
            assert_eq!(breaker.state(), State::HalfOpen);
            assert!(breaker.enter().is_err());
        }
        drop(probe);
    });
}
