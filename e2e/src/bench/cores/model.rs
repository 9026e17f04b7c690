//! A model of event loops on many cores: what each request does to lines that other cores write, too.
//!
//! ```text
//!  core  | look: line of the lock | other keys of the batch | line, lock held: the command | own work |
//!          fetched if another core wrote it last; one core at a time          (writes: the journal's lock)
//! ```
//!
//! It knows the lines, the locks and the time of the work alone, and nothing of caches that are too small, of the memory's
//! bandwidth, of the network and of interrupts: it says what the shared lines and locks cost, and no more.

/// Locks of slots, and how many of them are on one line.
const SLOTS: usize = 16_384;
const LOCKS_PER_LINE: usize = 64;

/// Times in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Costs {
    /// A request's whole time on one core, with its share of the system calls.
    pub(super) request: u64,
    /// The part of it under the slot's lock.
    pub(super) held: u64,
    /// A line that another core wrote last.
    pub(super) line: u64,
    /// The part under the journal's lock; 0: no journal.
    pub(super) journal: u64,
}

/// How requests meet the lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// Requests that are looked at together.
    pub(super) batch: usize,
    /// The lines of a batch's locks are asked for before the first one is needed.
    pub(super) ahead: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    pub(super) requests_per_second: f64,
    /// Of the requests: share that found its lock held.
    pub(super) waited: f64,
    /// Lines fetched from other cores, per request.
    pub(super) fetched: f64,
}

/// One line: who had it last, and until when it is in use.
#[derive(Clone, Copy)]
struct Shared {
    owner: usize,
    free_at: u64,
}

const NOBODY: usize = usize::MAX;

struct World {
    lines: Vec<Shared>,
    locks: Vec<u64>,
    journal: Shared,
    fetched: u64,
    waited: u64,
}

impl World {
    /// `core` wants to write a line at `now`; when it has it.
    fn fetch(&mut self, slot: usize, core: usize, now: u64, cost: u64) -> u64 {
        let line = &mut self.lines[slot / LOCKS_PER_LINE];
        if line.owner == core {
            return now.max(line.free_at);
        }
        self.fetched += u64::from(line.owner != NOBODY);
        line.owner = core;
        line.free_at = now.max(line.free_at) + cost;
        line.free_at
    }

    /// The command under the slot's lock; when that is free again.
    fn execute(&mut self, slot: usize, core: usize, now: u64, costs: &Costs) -> u64 {
        let has_line = self.fetch(slot, core, now, costs.line);
        let mut begins = has_line;
        if self.locks[slot] > begins {
            // Who held it has taken the line back to let go of it.
            self.waited += 1;
            self.lines[slot / LOCKS_PER_LINE].owner = NOBODY;
            begins = self.fetch(slot, core, self.locks[slot], costs.line) + costs.line;
        }
        let mut ends = begins + costs.held;
        if costs.journal > 0 {
            let moves = self.journal.owner != core;
            let has_journal = ends.max(self.journal.free_at) + if moves { costs.line } else { 0 };
            ends = has_journal + costs.journal;
            self.journal = Shared { owner: core, free_at: ends };
        }
        self.locks[slot] = ends;
        ends
    }
}

/// A core between two steps of its own.
struct Core {
    now: u64,
    batch: Vec<usize>,
    next: usize,
    done: u64,
}

/// So many cores, each busy all the time, until every one has done `requests`; keys are spread evenly over the slots.
pub(super) fn run(cores: usize, requests: u64, costs: &Costs, way: &Way) -> Found {
    let mut world = World {
        lines: vec![Shared { owner: NOBODY, free_at: 0 }; SLOTS / LOCKS_PER_LINE],
        locks: vec![0; SLOTS],
        journal: Shared { owner: NOBODY, free_at: 0 },
        fetched: 0,
        waited: 0,
    };
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = || {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        (chance >> 20) as usize % SLOTS
    };
    let own = costs.request.saturating_sub(costs.held + costs.journal);
    // The cores do not begin in step.
    let fresh = |n: usize| Core { now: n as u64 * 37, batch: vec![], next: 0, done: 0 };
    let mut all: Vec<Core> = (0..cores).map(fresh).collect();
    while all.iter().any(|core| core.done < requests) {
        // Whoever is furthest behind comes next, so that lines change hands in the order of time.
        let Some(n) = (0..cores).min_by_key(|n| all[*n].now) else { break };
        let core = &mut all[n];
        if core.next == core.batch.len() {
            core.batch = (0..way.batch).map(|_| draw()).collect();
            core.next = 0;
            let asked = core.now;
            for slot in &core.batch {
                let from = if way.ahead { asked } else { core.now };
                core.now = core.now.max(world.fetch(*slot, n, from, costs.line));
            }
            continue;
        }
        let slot = core.batch[core.next];
        core.now = world.execute(slot, n, core.now, costs) + own;
        core.next += 1;
        core.done += 1;
    }
    let done: u64 = all.iter().map(|core| core.done).sum();
    let ended = all.iter().map(|core| core.now).max().unwrap_or(1);
    Found {
        requests_per_second: done as f64 * 1e9 / ended as f64,
        waited: world.waited as f64 / done as f64,
        fetched: world.fetched as f64 / done as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs { request: 400, held: 100, line: 80, journal: 0 };
    const WAY: Way = Way { batch: 16, ahead: false };

    #[test]
    fn one_core_takes_its_own_time_and_nothing_more() {
        let found = run(1, 10_000, &COSTS, &WAY);
        let expected = 1e9 / 400.0;
        assert!((found.requests_per_second / expected - 1.0).abs() < 0.01, "{found:?}");
        assert!(found.waited == 0.0 && found.fetched == 0.0, "{found:?}");
    }

    #[test]
    fn nearly_each_request_fetches_its_line_where_many_cores_write_them() {
        let found = run(32, 5_000, &COSTS, &WAY);
        assert!(found.fetched > 0.9, "{found:?}");
        assert!(found.waited < 0.02, "{found:?}");
        let ahead = run(32, 5_000, &COSTS, &Way { ahead: true, ..WAY });
        assert!(ahead.requests_per_second > found.requests_per_second, "{ahead:?} {found:?}");
    }

    #[test]
    fn a_journal_bounds_all_cores_together() {
        let costs = Costs { journal: 50, ..COSTS };
        let found = run(32, 5_000, &costs, &WAY);
        // 50 ns under its lock, and its line from another core each time.
        assert!(found.requests_per_second < 1e9 / 130.0 * 1.05, "{found:?}");
    }
}
