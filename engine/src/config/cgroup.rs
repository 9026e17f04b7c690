//! The limits of the container that the process runs in: memory and processor time, cgroup v1 and v2.

use std::path::{Path, PathBuf};

/// What the cgroup allows; `None` where it sets no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_milli: Option<u64>,
}

/// Reads the limits of this process; none when there is no cgroup.
pub fn read() -> CgroupLimits {
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    read_under(Path::new("/sys/fs/cgroup"), &membership)
}

/// Reads limits below a mount point. A container often sees its own cgroup as the root, so both the
/// path of the membership and the root itself are looked at; the smallest limit on the way counts.
fn read_under(root: &Path, membership: &str) -> CgroupLimits {
    let mut limits = CgroupLimits::default();
    for line in membership.lines().chain(["0::/", "1:memory:/", "1:cpu:/", "1:cpu,cpuacct:/"]) {
        let mut parts = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let base = if controllers.is_empty() { root.to_path_buf() } else { root.join(controllers) };
        let mut at = PathBuf::from(path.trim_start_matches('/'));
        loop {
            look(&base.join(&at), controllers, &mut limits);
            if !at.pop() {
                break;
            }
        }
    }
    limits
}

fn look(dir: &Path, controllers: &str, limits: &mut CgroupLimits) {
    let number = |name: &str| -> Option<i64> {
        std::fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
    };
    let lower = |limit: &mut Option<u64>, found: Option<u64>| {
        if let Some(found) = found {
            *limit = Some(limit.map_or(found, |old| old.min(found)));
        }
    };
    // v1 says "no limit" with a number near 2^63.
    let memory = |n: i64| (n > 0 && n < 1 << 60).then_some(n as u64);
    if controllers.is_empty() {
        lower(&mut limits.memory, number("memory.max").and_then(memory));
        let cpu = std::fs::read_to_string(dir.join("cpu.max")).unwrap_or_default();
        let mut words = cpu.split_ascii_whitespace().map(str::parse::<u64>);
        if let (Some(Ok(quota)), Some(Ok(period))) = (words.next(), words.next()) {
            lower(&mut limits.cpu_milli, (quota * 1000).checked_div(period));
        }
        return;
    }
    if controllers.split(',').any(|c| c == "memory") {
        lower(&mut limits.memory, number("memory.limit_in_bytes").and_then(memory));
    }
    if controllers.split(',').any(|c| c == "cpu")
        && let (Some(quota), Some(period)) =
            (number("cpu.cfs_quota_us"), number("cpu.cfs_period_us"))
        && quota > 0
        && period > 0
    {
        lower(&mut limits.cpu_milli, Some(quota as u64 * 1000 / period as u64));
    }
}

impl CgroupLimits {
    /// maxmemory for a memory limit: less a quarter, at least 32 MiB and at most half of the limit.
    ///
    /// The reserve is for what is not counted as data: the allocator's slack (some 10 %), clients' input
    /// and output, the journal's backlog, and old values that a snapshot keeps while it is written.
    pub fn maxmemory(&self) -> Option<u64> {
        self.memory.map(|limit| limit - (limit / 4).max(32 << 20).min(limit / 2))
    }

    /// Event loops for a quota: one for each started processor, as many as the machine has at most.
    pub fn threads(&self, processors: usize) -> usize {
        let quota = self.cpu_milli.map_or(processors, |milli| milli.div_ceil(1000) as usize);
        quota.clamp(1, processors.clamp(1, 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(files: &[(&str, &str)], membership: &str) -> CgroupLimits {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        read_under(dir.path(), membership)
    }

    #[test]
    fn version_two_limits_are_read_at_every_level() {
        let limits = world(
            &[
                ("pods/memory.max", "1073741824\n"),
                ("pods/a/memory.max", "max\n"),
                ("pods/a/cpu.max", "150000 100000\n"),
            ],
            "0::/pods/a\n",
        );
        assert_eq!(limits, CgroupLimits { memory: Some(1 << 30), cpu_milli: Some(1500) });
        assert_eq!(limits.maxmemory(), Some(768 << 20));
        assert_eq!(limits.threads(8), 2);
        assert_eq!(limits.threads(1), 1);
    }

    #[test]
    fn version_one_limits_are_read_from_the_roots_too() {
        let limits = world(
            &[
                ("memory/memory.limit_in_bytes", "134217728\n"),
                ("cpu,cpuacct/cpu.cfs_quota_us", "200000\n"),
                ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ],
            "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n",
        );
        assert_eq!(limits, CgroupLimits { memory: Some(128 << 20), cpu_milli: Some(2000) });
        assert_eq!(limits.maxmemory(), Some(96 << 20));
    }

    #[test]
    fn no_limit_is_no_limit() {
        let none =
            world(&[("memory/memory.limit_in_bytes", "9223372036854771712")], "3:memory:/\n");
        assert_eq!(none, CgroupLimits::default());
        assert_eq!(none.maxmemory(), None);
        assert_eq!(none.threads(4), 4);
    }
}
