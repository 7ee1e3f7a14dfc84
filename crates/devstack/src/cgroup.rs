//! A share of one CPU for a server and all its children, by a control group of the kernel's: version 2 where it has the CPU
//! controller, else version 1. Needs Linux and root.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::unistd::Pid;

/// A server's share of one CPU; the group that holds it to that is removed by the watchdog.
pub struct CpuLimit(PathBuf);

impl CpuLimit {
    /// How often the server gets its share anew: the kernel's usual period. In shorter ones a small share is spent on warming
    /// up the caches of the CPU, the more so the less else runs that has the same code.
    pub const PERIOD: Duration = Duration::from_millis(100);

    /// In how many periods so far the server had used its share before the end, and would have done more.
    pub fn exhausted(&self) -> Result<u64> {
        let text = fs::read_to_string(self.0.join("cpu.stat"))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        Ok(line.context("no count of throttled periods")?.parse()?)
    }

    /// Makes a group whose processes together have `share` of one CPU. `list` is told first, so that the group is removed
    /// whatever happens.
    pub(crate) fn new(name: &str, share: f64, list: &Path) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let (parent, is_v2) =
            parent(&mounts).context("no control group for CPU time is mounted")?;
        let group = Self(parent.join(name));
        let mut list = OpenOptions::new().create(true).append(true).open(list)?;
        writeln!(list, "{}", group.0.display())?;
        let period_us = Self::PERIOD.as_micros();
        let quota_us = Self::PERIOD.mul_f64(share).as_micros();
        if is_v2 {
            write(&parent.join("cgroup.subtree_control"), "+cpu")?;
        }
        fs::create_dir(&group.0)
            .with_context(|| format!("create {} (it takes root)", group.0.display()))?;
        if is_v2 {
            group.set("cpu.max", &format!("{quota_us} {period_us}"))?;
        } else {
            group.set("cpu.cfs_period_us", &period_us.to_string())?;
            group.set("cpu.cfs_quota_us", &quota_us.to_string())?;
        }
        Ok(group)
    }

    /// Takes a process in, and with it every child it will have.
    pub(crate) fn admit(&self, pid: Pid) -> Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        write(&self.0.join(file), value)
    }
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("write {value} to {}", path.display()))
}

/// Where groups for CPU time are made, and whether they are version 2. A line of mounts: `device folder type options …`.
fn parent(mounts: &str) -> Option<(PathBuf, bool)> {
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?, fields.next()?))
    });
    let has_cpu = |folder: &str| {
        fs::read_to_string(Path::new(folder).join("cgroup.controllers"))
            .is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == "cpu"))
    };
    let mut found = mounted.filter_map(|(folder, kind, options)| match kind {
        "cgroup2" if has_cpu(folder) => Some((PathBuf::from(folder), true)),
        "cgroup" if options.split(',').any(|option| option == "cpu") => {
            Some((PathBuf::from(folder), false))
        }
        _ => None,
    });
    found.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_of_cpu_time_is_found_among_the_mounts() {
        let accounting = "cgroup /sys/fs/cgroup/cpuacct cgroup rw,cpuacct 0 0\n";
        let cpu = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n";

        assert_eq!(parent(accounting), None);
        assert_eq!(
            parent(&format!("{accounting}{cpu}")),
            Some((PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"), false))
        );
    }
}
