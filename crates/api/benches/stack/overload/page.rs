//! The figures as a section of `deploy/bench/RESULTS.md`.

use std::fmt::Write;

use super::{Overload, SLO, Step};
use crate::report;

impl Overload {
    /// What of the peak can be left, when each refusal costs what it does and everything else is free.
    pub(super) fn ceiling(&self, load: f64) -> f64 {
        let refused = (load - 1.0).max(0.0);
        (1.0 - refused * self.refusal / self.page).min(load)
    }
}

pub(super) fn write(measured: &Overload) -> anyhow::Result<()> {
    let mut page = String::new();
    writeln!(
        page,
        "Measured by `make overload`: the service on core 0 reads pages of 50 products from Postgres and compresses them; an open loop on\n\
         core 1, which Postgres shares, sends requests at fixed times, each timed from the moment it was due, and good within {SLO:?}.\n\
         Load and goodput are multiples of the peak, measured before and after each load ({:.0} pages/s at first). Requests worth 0.4\n\
         of the peak are critical throughout, the rest is sheddable. The ceiling is arithmetic: 1 − (load − 1) · refusal ÷ page. The\n\
         control is `admission.enabled = false`.\n",
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
        "| load | goodput | ceiling | of the ceiling | critical in time | p99 | sheddable in time | refused | p99 of refusals | sent late, p99 | control |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
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
            late_p99,
            sent,
        } = step;
        let ceiling = measured.ceiling(*sent);
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
             {refusal_p99:.1?} | {late_p99:.1?} | {control} |"
        )?;
    }
    writeln!(page)
}

fn costs(page: &mut String, measured: &Overload) -> std::fmt::Result {
    let Overload {
        product,
        page: per_page,
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
        "| T8: CPU of a refusal ÷ of reading one product | {refusal:.1} µs ÷ {product:.1} µs = {:.3} | ≤ 0.10 |",
        refusal / product
    )?;
    writeln!(
        page,
        "| the same ÷ of a page | {refusal:.1} µs ÷ {per_page:.1} µs = {:.3} | |",
        refusal / per_page
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
