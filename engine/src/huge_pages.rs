//! Memory in huge pages, where all of it is in use anyway.
//!
//! A key out of hundreds of megabytes misses not only the caches but also the TLB, and the walk through the page table
//! that follows costs as much again, twice that in a virtual machine. A page of 2 MiB in place of 512 small ones spares
//! most walks.
//!
//! Redis asks the kernel for none (`disable-thp`): its snapshots fork, and a write then copies a whole page. Nothing forks
//! here. And none is asked for where memory is touched first, for that costs what a cache must not pay: ten megabytes more
//! for an empty server, and clients that wait while a fresh page is zeroed, which the lists of a busy queue do all the
//! time. Instead this thread looks for ranges that have stayed resident as a whole, and has the kernel put each into one
//! page (`MADV_COLLAPSE`, Linux 6.1): nothing grows, and what comes and goes is left alone. What is freed later the
//! allocator gives back as before, which parts the page again.

#![expect(unsafe_code, reason = "three system calls; none changes what memory holds")]

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::server::Shared;

/// How often the memory is looked at, at most; a look that takes long is repeated less often.
const LOOK: Duration = Duration::from_secs(1);
/// The thread rests for so many times as long as it worked: a collapse holds page faults up, and takes a core.
const REST: u32 = 20;
/// After so many looks ranges that are huge pages, as far as is known, are tried again: parts may have been given back since.
const FORGET_LOOKS: u32 = 60;
/// The kernel has no huge page to give, or (it says the same) the range has just gone: it is asked again after this.
const NONE_LEFT: Duration = Duration::from_secs(30);
/// Memory is asked about in pieces of so many huge pages.
const PIECE: usize = 32;

/// Bytes in huge pages, as far as this thread has made them.
static BYTES: AtomicU64 = AtomicU64::new(0);

pub fn bytes() -> u64 {
    BYTES.load(Ordering::Relaxed)
}

/// # Errors
/// When the thread cannot be started.
pub fn start(shared: &Arc<Shared>) -> io::Result<()> {
    // A kernel without huge pages has no such file.
    let Some(size) = huge_page_size() else { return Ok(()) };
    let shared = shared.clone();
    let look = move || {
        let mut pages = Pages::new(size);
        while !shared.state.shutdown.load(Ordering::Acquire) {
            let looked = match shared.config.is_yes("larder-huge-pages") {
                true => pages.look(),
                false => Ok(Duration::ZERO),
            };
            match looked.map_err(|error| error.raw_os_error()) {
                Ok(took) => thread::sleep(LOOK.max(took * REST)),
                Err(Some(libc::EINVAL)) => return tracing::info!("this kernel collapses no pages"),
                Err(_) => thread::sleep(NONE_LEFT),
            }
        }
    };
    thread::Builder::new().name("huge-pages".into()).spawn(look).map(drop)
}

fn huge_page_size() -> Option<usize> {
    let text =
        std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?;
    text.trim().parse().ok().filter(|size: &usize| size.is_power_of_two())
}

/// What is known of the process's memory, by addresses of ranges of the size of a huge page.
struct Pages {
    size: usize,
    /// Resident as a whole when they were looked at last, and not made huge.
    resident: HashSet<usize>,
    made: HashSet<usize>,
    looks: u32,
}

impl Pages {
    fn new(size: usize) -> Pages {
        Pages { size, resident: HashSet::new(), made: HashSet::new(), looks: 0 }
    }

    /// Makes huge pages of the ranges that were resident the last time, too; gives how long it took to find them.
    fn look(&mut self) -> io::Result<Duration> {
        let start_us = clock::monotonic_us();
        self.looks += 1;
        if self.looks.is_multiple_of(FORGET_LOOKS) {
            self.made.clear();
        }
        let now = resident(&std::fs::read_to_string("/proc/self/maps")?, self.size);
        self.made.retain(|at| now.contains(at));
        self.tell();
        let took = since(start_us);
        let left = now.into_iter().filter(|at| !self.made.contains(at));
        let (stayed, new) = left.partition::<HashSet<_>, _>(|at| self.resident.contains(at));
        self.resident = new;
        for at in stayed {
            let start_us = clock::monotonic_us();
            match collapse(at, self.size) {
                Ok(()) => {
                    self.made.insert(at);
                    self.tell();
                }
                // It is pinned, or is being changed.
                Err(error) if may_be_its_own_fault(&error) => {}
                Err(error) => return Err(error),
            }
            thread::sleep(since(start_us) * REST);
        }
        Ok(took)
    }

    fn tell(&self) {
        BYTES.store((self.made.len() * self.size) as u64, Ordering::Relaxed);
    }
}

fn since(start_us: u64) -> Duration {
    Duration::from_micros(clock::monotonic_us() - start_us)
}

fn may_be_its_own_fault(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EFAULT))
}

/// Addresses of the ranges that are resident as a whole, from what `/proc/self/maps` says.
fn resident(maps: &str, size: usize) -> HashSet<usize> {
    let page = small_page_size();
    let mut found = HashSet::new();
    for (start, end) in maps.lines().filter_map(anonymous) {
        let (first, last) = (start.next_multiple_of(size), end / size * size);
        for piece in (first..last).step_by(PIECE * size) {
            let pages = core_map(piece, (last - piece).min(PIECE * size), page);
            let ranges = (piece..).step_by(size).zip(pages.chunks_exact(size / page));
            let whole = ranges.filter(|(_, pages)| pages.iter().all(|p| p & 1 == 1));
            found.extend(whole.map(|(at, _)| at));
        }
    }
    found
}

/// Start and end of private memory without a file, of a line such as
/// `7f2c00000000-7f2c40000000 rw-p 00000000 00:00 0`; stacks have a name.
fn anonymous(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_so = words.next()? == "rw-p" && words.nth(2)? == "0" && words.next().is_none();
    let address = |hex| usize::from_str_radix(hex, 16).ok();
    address(start).zip(address(end)).filter(|_| is_so)
}

fn small_page_size() -> usize {
    // SAFETY: no memory is touched; what it asks for has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// A byte for each page of the range, whose lowest bit says that it is there; nothing when the range has gone.
fn core_map(at: usize, len: usize, page: usize) -> Vec<u8> {
    let mut pages = vec![0; len / page];
    // SAFETY: it reads no memory of the range, and writes a byte for each page into `pages`, which has that many.
    let done = unsafe { libc::mincore(at as *mut libc::c_void, len, pages.as_mut_ptr()) };
    if done == 0 { pages } else { Vec::new() }
}

fn collapse(at: usize, len: usize) -> io::Result<()> {
    // SAFETY: what the range holds stays as it is, whoever it belongs to; a range that is gone is an error.
    let done = unsafe { libc::madvise(at as *mut libc::c_void, len, libc::MADV_COLLAPSE) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::{anonymous, huge_page_size, resident};

    #[test]
    fn memory_without_a_file_is_told_from_the_rest() {
        let of = |line| anonymous(line);
        assert_eq!(of("1000-3000 rw-p 00000000 00:00 0 "), Some((0x1000, 0x3000)));
        assert_eq!(of("1000-3000 r--p 00000000 00:00 0 "), None);
        assert_eq!(of("1000-3000 rw-s 00000000 00:00 0 "), None);
        assert_eq!(of("1000-3000 rw-p 00000000 fe:00 12 /lib/x.so"), None);
        assert_eq!(of("1000-3000 rw-p 00000000 00:00 0 [stack]"), None);
        assert_eq!(of("what"), None);
    }

    #[test]
    fn only_ranges_that_are_there_as_a_whole_are_found() {
        let Some(size) = huge_page_size() else {
            println!("skipped: this kernel has no huge pages");
            return;
        };
        // Fresh memory is not resident until it is touched.
        let mut memory = vec![0_u8; size * 4];
        let first = (memory.as_ptr() as usize).next_multiple_of(size);
        let end = first + 3 * size;
        let maps = format!("{first:x}-{end:x} rw-p 00000000 00:00 0 \n");
        let offset = first - memory.as_ptr() as usize;
        memory[offset..offset + size].fill(1);
        memory[offset + size] = 1;
        let found = resident(&maps, size);
        assert!(found.contains(&first), "touched as a whole");
        assert!(!found.contains(&(first + 2 * size)), "not touched");
    }
}
