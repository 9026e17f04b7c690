//! What this machine has to give: memory that is available, and files that a process may have open.

use std::fs;

use super::Error;

#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    /// Bytes.
    pub(super) memory: u64,
    pub(super) files: u64,
}

impl Machine {
    pub(super) fn now() -> Result<Self, Error> {
        let read = |path: &str| fs::read_to_string(path).map_err(Error::io(format!("read {path}")));
        let memory = available(&read("/proc/meminfo")?)
            .ok_or_else(|| Error::Refused("/proc/meminfo: no MemAvailable".into()))?;
        let files = open_files(&read("/proc/self/limits")?)
            .ok_or_else(|| Error::Refused("/proc/self/limits: no open files".into()))?;
        Ok(Self { memory, files })
    }
}

/// Bytes of `MemAvailable`.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    Some(kib * 1024)
}

/// The soft limit of open files.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_the_kernel_writes_them() {
        let meminfo = "MemTotal:  24611844 kB\nMemAvailable:   23803204 kB\nBuffers: 1 kB\n";
        assert_eq!(available(meminfo), Some(23_803_204 * 1024));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        let limits = "Max processes             95000                95000                processes \n\
                      Max open files            20000                40000                files     \n";
        assert_eq!(open_files(limits), Some(20_000));
        assert_eq!(open_files("Max open files  unlimited  unlimited  files\n"), Some(u64::MAX));
        assert_eq!(open_files(""), None);
    }
}
