//! The files of the log under a disk that loses power, or fails, at every single step.
//!
//! A story writes entries (a line each, numbered from 0), syncs, rewrites and opens again. It is run again
//! and again with the disk ending at its first, second, third... operation. What is left then is what was
//! synced, and of the rest any part. From that the log must load, and hold every entry that was
//! acknowledged (synced in a file that counts), nothing twice and nothing out of order.

use std::io;
use std::path::Path;
use std::sync::Arc;

use engine::council::rng::Rng;
use engine::disk::Disk;
use engine::persist::aof::Log;

mod crash_disk;
use crash_disk::{CrashDisk, Ends};

const FOLDER: &str = "/log";
const NAME: &str = "appendonly.aof";
const HEAD: &[u8] = b"#head\n";
const STEPS: u64 = 14;
const SEEDS: u64 = 60;

/// What the story's client knows.
#[derive(Clone, Copy, Default, Debug)]
struct Truth {
    written: u32,
    acknowledged: u32,
}

struct Story {
    disk: CrashDisk,
    log: Log,
    truth: Truth,
    rng: Rng,
}

fn line(entry: u32) -> Vec<u8> {
    format!("{entry}\n").into_bytes()
}

impl Story {
    /// Goes on behind `good` bytes of the last file, or begins anew, as the server does when it starts.
    fn start(&mut self, good: Option<u64>) -> io::Result<()> {
        let goes_on = match good {
            Some(len) => self.log.go_on(len)?,
            None => false,
        };
        if !goes_on {
            return self.rewrite(true);
        }
        self.log.write(HEAD)?;
        self.log.sync()
    }

    fn write(&mut self) -> io::Result<()> {
        for _ in 0..=self.rng.below(3) {
            let bytes = line(self.truth.written);
            // It may be on disk from here on, whatever the answer.
            if self.log.write(&bytes).is_err() {
                self.log.mend()?;
                self.log.write(&bytes)?;
            }
            self.truth.written += 1;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.log.sync().is_err() {
            // Nobody knows what is on disk: the log begins anew.
            return self.rewrite(true);
        }
        if self.log.counts() {
            self.truth.acknowledged = self.truth.written;
        }
        Ok(())
    }

    fn rewrite(&mut self, anew: bool) -> io::Result<()> {
        let moment = self.truth.written;
        let from = self.log.switch(HEAD, !anew)?;
        let temporary = self.log.base_path();
        let mut base = self.disk.create(&temporary)?;
        for entry in 0..moment {
            base.write_all(&line(entry))?;
        }
        self.write()?;
        base.sync()?;
        drop(base);
        self.log.adopt(&temporary, from)
    }

    fn step(&mut self) -> io::Result<()> {
        match self.rng.below(8) {
            0..=3 => self.write(),
            4 | 5 => self.sync(),
            6 => self.rewrite(!self.log.counts()),
            _ => self.rewrite(true),
        }
    }

    /// Runs to its end, or to the disk's.
    fn run(&mut self) {
        for _ in 0..STEPS {
            if self.step().is_err() && (self.disk.has_ended() || !self.recover()) {
                return;
            }
        }
        let _ = self.sync();
    }

    /// After an error of a disk that goes on: what the server does, a rewrite anew, until it succeeds.
    fn recover(&mut self) -> bool {
        (0..3).any(|_| self.rewrite(true).is_ok())
    }
}

fn open(disk: &CrashDisk) -> io::Result<Log> {
    Log::open(Arc::new(disk.clone()), Path::new(FOLDER), NAME)
}

/// Loads the log as the server does: entries in order, and the good bytes of the last file.
fn load(disk: &CrashDisk) -> Result<(u32, Option<u64>), String> {
    let log = open(disk).map_err(|e| e.to_string())?;
    let manifest = log.manifest().clone();
    let mut next = 0;
    let mut good = None;
    let parts: Vec<_> = manifest.base.iter().chain(&manifest.incr).collect();
    for (i, part) in parts.iter().enumerate() {
        let bytes = disk.read(&log.path(part)).map_err(|e| format!("{}: {e}", part.name))?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let is_last_incr = i + 1 == parts.len() && manifest.incr.last() == Some(*part);
        if whole != bytes.len() && !is_last_incr {
            return Err(format!("{} has a torn tail and is not the last", part.name));
        }
        for text in String::from_utf8_lossy(&bytes[..whole]).lines() {
            if text.starts_with('#') {
                continue;
            }
            if text != next.to_string() {
                return Err(format!("{}: {text} in place of {next}", part.name));
            }
            next += 1;
        }
        if is_last_incr {
            good = Some(whole as u64);
        }
    }
    Ok((next, good))
}

fn check(disk: &CrashDisk, truth: Truth, told: &str) -> (u32, Option<u64>) {
    let (entries, good) = load(disk).unwrap_or_else(|why| panic!("{told}: {why}"));
    assert!(entries >= truth.acknowledged, "{told}: {entries} entries of {truth:?}");
    assert!(entries <= truth.written + 1, "{told}: {entries} entries of {truth:?}");
    (entries, good)
}

/// One life: what was written and acknowledged in it, and before it.
fn live(disk: &CrashDisk, seed: u64, truth: Truth, good: Option<u64>) -> Truth {
    let Ok(log) = open(disk) else { return truth };
    let mut story = Story { disk: disk.clone(), log, truth, rng: Rng::new(seed) };
    if story.start(good).is_ok() || (!disk.has_ended() && story.recover()) {
        story.run();
    }
    story.truth
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_acknowledged() {
    let mut cuts = 0;
    for seed in 0..SEEDS {
        for at in 1.. {
            let told = format!("seed {seed}, power cut at operation {at}");
            let disk = CrashDisk::new(seed * 1000 + at, Ends::PowerCut { at });
            let truth = live(&disk, seed, Truth::default(), None);
            let left = disk.left();
            let (entries, good) = check(&left, truth, &told);
            // The next life goes on from there, and is cut too: while it opens, or somewhat later.
            let truth = Truth { written: entries, acknowledged: truth.acknowledged };
            left.end(Ends::PowerCut { at: 1 + at % 9 });
            let truth = live(&left, seed + 1, truth, good);
            check(&left.left(), truth, &format!("{told}, then again"));
            cuts += 1;
            if !disk.has_ended() {
                break;
            }
        }
    }
    println!("{cuts} power cuts");
    assert!(cuts > 1000, "the stories are too short: {cuts} power cuts");
}

#[test]
fn an_error_at_any_step_loses_nothing_acknowledged() {
    for seed in 0..SEEDS {
        for at in 1.. {
            let told = format!("seed {seed}, error at operation {at}");
            let disk = CrashDisk::new(seed * 1000 + at, Ends::Error { at });
            let truth = live(&disk, seed, Truth::default(), None);
            check(&disk.left(), truth, &told);
            if disk.operations() < at {
                break;
            }
        }
    }
}
