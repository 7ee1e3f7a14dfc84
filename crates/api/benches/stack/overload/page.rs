//! The figures as a section of `deploy/bench/RESULTS.md`.

use std::fmt::Write;

use super::{Overload, SLO, Step};
use crate::report;

impl Overload {
    /// What of the peak can be left, when each refusal costs what it does and everything else is free.
    pub(super) fn ceiling(&self, load: f64) -> f64 {
        let refused = (load - 1.0).max(0.0);
        (1.0 - refused * self.refusal / self.read).min(load)
    }
}

pub(super) fn write(measured: &Overload) -> anyhow::Result<()> {
    let mut page = String::new();
    writeln!(
        page,
        "Measured by `make load`: the service on core 0 reads products from Postgres, with no cache; an open loop on core 1 sends\n\
         requests at fixed times, each timed from the moment it was due, and good within {SLO:?}. Load and goodput are multiples\n\
         of the peak of this run, {:.0} answers/s. Requests worth 0.4 of the peak are critical throughout, the rest is sheddable.\n\
         The ceiling is arithmetic: 1 − (load − 1) · refusal ÷ read. The control is `admission.enabled = false`.\n",
        measured.peak
    )?;
    writeln!(page, "![Goodput by load](goodput.svg)\n")?;
    steps(&mut page, measured)?;
    costs(&mut page, measured)?;
    report::put("Overload", &page)
}

fn steps(page: &mut String, measured: &Overload) -> std::fmt::Result {
    writeln!(
        page,
        "| load | goodput | ceiling | of the ceiling | critical in time | p99 | sheddable in time | refused | p99 of refusals | control |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )?;
    for step in &measured.guarded {
        let Step {
            load,
            goodput,
            critical,
            sheddable,
            refused,
            p99,
            refusal_p99,
        } = step;
        let ceiling = measured.ceiling(*load);
        let control = measured
            .control
            .iter()
            .find(|other| same(other.load, *load));
        let control = control.map_or(String::new(), |control| format!("{:.2}", control.goodput));
        let (critical, sheddable, refused) = (100.0 * critical, 100.0 * sheddable, 100.0 * refused);
        let share = goodput / ceiling;
        writeln!(
            page,
            "| {load} | {goodput:.2} | {ceiling:.2} | {share:.2} | {critical:.2} % | {p99:.0?} | {sheddable:.1} % | {refused:.1} % | \
             {refusal_p99:.1?} | {control} |"
        )?;
    }
    writeln!(page)
}

fn costs(page: &mut String, measured: &Overload) -> std::fmt::Result {
    let Overload {
        read,
        refusal,
        storm,
        ..
    } = measured;
    let recovery = storm.recovery.map_or_else(
        || "none in 10 s".to_owned(),
        |recovery| format!("second {}", recovery.as_secs() + 1),
    );
    writeln!(page, "| | measured | wanted |\n|---|---:|---|")?;
    writeln!(
        page,
        "| T8: CPU of a refusal ÷ of a read | {refusal:.1} µs ÷ {read:.1} µs = {:.2} | ≤ 0.10 |",
        refusal / read
    )?;
    writeln!(
        page,
        "| 10 times the peak for 10 s: sent | {:.1} times | 10 |",
        storm.sent
    )?;
    writeln!(
        page,
        "| critical in time meanwhile | {:.2} % | |",
        100.0 * storm.critical
    )?;
    writeln!(
        page,
        "| longest `/health` meanwhile | {:.1?} | < 100 ms |",
        storm.health_max
    )?;
    writeln!(
        page,
        "| then half the peak: 99 % in time in | {recovery} | second 5 at the latest |"
    )
}

pub(super) fn same(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-9
}
