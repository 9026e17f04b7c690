//! What this machine has to give: memory that is available, files that a process may have open, and its caches.

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

/// Bytes of the last-level cache of the first core.
pub(super) fn last_level_cache() -> Result<u64, Error> {
    let folder = "/sys/devices/system/cpu/cpu0/cache";
    let entries = fs::read_dir(folder).map_err(Error::io(format!("read {folder}")))?;
    let sizes = entries.flatten().filter_map(|entry| {
        // Beside one folder for each cache there are other files.
        cache_size(&fs::read_to_string(entry.path().join("size")).ok()?)
    });
    sizes.max().ok_or_else(|| Error::Refused(format!("{folder}: no cache with a size")))
}

/// Bytes of a cache, as the kernel writes them: `32768K`.
fn cache_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        _ => return None,
    };
    Some(text.strip_suffix(unit)?.parse::<u64>().ok()? << shift)
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
        assert_eq!(cache_size("32768K\n"), Some(32 << 20));
        assert_eq!(cache_size("105M"), Some(105 << 20));
        assert_eq!([cache_size(""), cache_size("K"), cache_size("1 page")], [None; 3]);
    }
}
