//! The figures as a page: `deploy/bench/RESULTS.md`, in sections that are measured one by one.

use std::{fmt::Write, fs};

use super::{
    contender::Contender::{
        self, BareHello, BareInProcess, BarePingFree, BareSqlx, Hello, InProcess, Postgres, Redis,
    },
    load::Sample,
    machine::machine,
    memory::Footprint,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/bench/RESULTS.md");

/// What is compared with what, and what is wanted of it.
const RATIOS: [(&str, Contender, Contender, &str); 6] = [
    (
        "T1: from Postgres, whole stack ÷ bare axum with sqlx's pool",
        Postgres,
        BareSqlx,
        "≥ 1.3 rps, ≤ 0.85 CPU",
    ),
    (
        "T2: from Postgres, whole stack ÷ bare axum with our pool",
        Postgres,
        BarePingFree,
        "≥ 0.80 rps",
    ),
    (
        "T3: the stack's tax on a trivial route",
        Hello,
        BareHello,
        "≤ 1.8 CPU",
    ),
    (
        "T5: in process ÷ from Postgres, whole stack both",
        InProcess,
        Postgres,
        "≥ 3 rps",
    ),
    (
        "T5: from Redis ÷ from Postgres, whole stack both",
        Redis,
        Postgres,
        "≥ 2.5 rps",
    ),
    (
        "in process, whole stack ÷ bare axum",
        InProcess,
        BareInProcess,
        "1 is the limit",
    ),
];

/// Prints a section and puts it into the page, in the place of the one with this heading or else at the end. Names the machine.
pub fn put(heading: &str, body: &str) -> anyhow::Result<()> {
    let page = fs::read_to_string(FILE).unwrap_or_else(|_| "# Results\n".to_owned());
    let section = format!("## {heading}\n{}\n\n{}\n", machine(), body.trim_end());
    print!("\n{section}");
    let mut sections: Vec<&str> = page.split("\n## ").collect();
    let new = section.trim_start_matches("## ").trim_end();
    match sections
        .iter_mut()
        .find(|old| old.starts_with(&format!("{heading}\n")))
    {
        Some(old) => *old = new,
        None => sections.push(new),
    }
    let sections: Vec<&str> = sections.iter().map(|section| section.trim_end()).collect();
    Ok(fs::write(FILE, sections.join("\n\n## ") + "\n")?)
}

/// Writes what the stack costs. `table` has the samples of each contender, in the order of [`Contender::ALL`].
pub fn write(
    table: &[Vec<Sample>],
    footprint: &Footprint,
    rounds: u64,
    seconds: u64,
) -> anyhow::Result<()> {
    let mut page = String::new();
    writeln!(
        page,
        "{rounds} interleaved rounds of {seconds} s; the server on core 0, wrk (64 connections) on core 1, Postgres and \
         Redis on both.\nFigures of one run compare with each other, not with those of another.\n"
    )?;
    contenders(&mut page, table)?;
    ratios(&mut page, table)?;
    footprint_rows(&mut page, footprint)?;
    put("What the stack costs", &page)
}

fn contenders(page: &mut String, table: &[Vec<Sample>]) -> std::fmt::Result {
    writeln!(
        page,
        "| contender | answers/s | CPU µs per answer |\n|---|---:|---:|"
    )?;
    for (contender, samples) in Contender::ALL.iter().zip(table) {
        let (rps, cpu) = (
            column(samples, |sample| sample.rps),
            column(samples, |sample| sample.cpu_microseconds),
        );
        writeln!(
            page,
            "| {} | {:.0} | {:.1} |",
            contender.name(),
            median(rps),
            median(cpu)
        )?;
    }
    writeln!(page)
}

fn ratios(page: &mut String, table: &[Vec<Sample>]) -> std::fmt::Result {
    let samples = |wanted| {
        Contender::ALL
            .iter()
            .zip(table)
            .find(|(contender, _)| **contender == wanted)
    };
    writeln!(
        page,
        "| median of the rounds' ratios | answers/s | CPU per answer | wanted |\n|---|---:|---:|---|"
    )?;
    for (what, over, under, wanted) in RATIOS {
        let (Some((_, over)), Some((_, under))) = (samples(over), samples(under)) else {
            continue;
        };
        let ratio = |pick: fn(&Sample) -> f64| {
            median(
                over.iter()
                    .zip(under)
                    .map(|(over, under)| pick(over) / pick(under))
                    .collect(),
            )
        };
        let (rps, cpu) = (
            ratio(|sample| sample.rps),
            ratio(|sample| sample.cpu_microseconds),
        );
        writeln!(page, "| {what} | {rps:.2} | {cpu:.2} | {wanted} |")?;
    }
    writeln!(page)
}

fn footprint_rows(page: &mut String, footprint: &Footprint) -> std::fmt::Result {
    let Footprint {
        idle_mib,
        kept_mib,
        after_burst_mib,
        health_ms,
        ready_ms,
    } = footprint;
    writeln!(page, "| footprint | measured | wanted |\n|---|---:|---|")?;
    writeln!(page, "| T13: resident, idle | {idle_mib:.1} MiB | ≤ 15 |")?;
    writeln!(
        page,
        "| T13: resident, with 1,000 keep-alive connections | {kept_mib:.1} MiB | ≤ 48 |"
    )?;
    writeln!(
        page,
        "| T13: resident, 30 s after 5,000 more came and went | {after_burst_mib:.1} MiB | ≤ 1.5 × the row above |"
    )?;
    writeln!(
        page,
        "| T14: start to `/health` | {health_ms:.0} ms | ≤ 20 |"
    )?;
    writeln!(
        page,
        "| T14: start to `/ready` | {ready_ms:.0} ms | ≤ 300 |"
    )
}

fn column(samples: &[Sample], pick: fn(&Sample) -> f64) -> Vec<f64> {
    samples.iter().map(pick).collect()
}

/// The middle value; of an even number of them the upper one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
