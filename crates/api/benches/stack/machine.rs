//! The machine's line, beside which a figure means something.

use std::fs;

pub fn machine() -> String {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<_> = cpu_info
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "Machine: {} × {}, Linux {}.",
        models.len(),
        models.first().unwrap_or(&"unknown CPU"),
        kernel.trim()
    )
}
