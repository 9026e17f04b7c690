//! What the system says of this process.

use std::fs::read_to_string;

/// Resident memory, bytes.
pub fn rss_bytes() -> u64 {
    let statm = read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Memory of the machine, bytes.
pub(super) fn total_memory() -> u64 {
    let text = read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Seconds of processor time: in user code, in the system. The system counts in hundredths.
pub(crate) fn cpu_seconds() -> (f64, f64) {
    let stat = read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the process, in parentheses, may hold spaces; the fields behind it do not.
    let behind = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field =
        |n: usize| behind.split_ascii_whitespace().nth(n).and_then(|t| t.parse::<f64>().ok());
    (field(11).unwrap_or(0.0) / 100.0, field(12).unwrap_or(0.0) / 100.0)
}

/// Name, release and machine of the system.
pub(super) fn system() -> String {
    let release = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {} {}", release.trim(), std::env::consts::ARCH)
}

pub(super) fn executable() -> String {
    std::env::current_exe().map(|p| p.display().to_string()).unwrap_or_default()
}
