//! How long a shard accepts no write when its primary is killed, asked to end, or replaced in good order.
//!
//! A local cluster is run from a manifest; one primary after the other gets the fault, while a client that
//! follows redirections writes one key after the other to a slot of that shard. At the end every accepted write
//! is looked for.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::cluster::{Cluster, PATIENCE, Seeker, Shard, programs, refused};
use super::options::Fault;
use super::{Error, Options, clock, table};

pub(super) fn run(options: &Options) -> Result<(), Error> {
    let programs = programs(options)?;
    let cluster = Cluster::start(&programs, &options.manifest)?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..options.load {
            let (cluster, is_over) = (&cluster, &is_over);
            scope.spawn(move || write_on(cluster, number, is_over));
        }
        let done = faults(options, &cluster);
        is_over.store(true, Ordering::Release);
        done
    })
}

/// Other clients meanwhile: keys all over the slots, one after the other, as fast as they are accepted.
fn write_on(cluster: &Cluster, number: usize, is_over: &AtomicBool) {
    let mut seeker = Seeker::new(cluster);
    let keys = (0..10_000).cycle().take_while(|_| !is_over.load(Ordering::Acquire));
    for key in keys {
        if seeker.write(&format!("load:{number}:{key}")).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn faults(options: &Options, cluster: &Cluster) -> Result<(), Error> {
    let mut seeker = Seeker::new(cluster);
    let mut gaps = Vec::new();
    let (mut failed, mut accepted) = (0, Vec::new());
    for round in 0..options.kills {
        let shards = seeker.await_whole()?;
        let shard = &shards[round % shards.len()];
        let tag = tag_in(shard.first_slot);
        let mut writer = Writer { seeker: &mut seeker, tag, accepted: &mut accepted, failed: 0 };
        writer.until_accepted()?;
        let start = clock::now();
        let pid = make(options.fault, writer.seeker, shard)?;
        let gap = writer.gap_until(start, |seeker| match options.fault {
            Fault::Kill => true,
            Fault::Term => !Path::new(&format!("/proc/{pid}")).exists(),
            Fault::Handover => seeker.is_replica(&shard.primary),
        })?;
        failed += writer.failed;
        println!("{}: {} (slot {}): {gap:.0?}", round + 1, shard.primary, shard.first_slot);
        gaps.push(gap.as_secs_f64() * 1e3);
    }
    seeker.await_whole()?;
    let lost = accepted.iter().filter(|key| !seeker.has(key)).count();
    gaps.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let rank = (gaps.len() * percent).div_ceil(100).max(1) - 1;
        gaps.get(rank).map_or_else(|| "-".into(), |gap| format!("{gap:.0}"))
    };
    println!();
    table::print(
        &["fault", "times", "gap ms p50", "p99", "max", "failed attempts", "writes", "lost"],
        &[vec![
            format!("{:?}", options.fault).to_lowercase(),
            options.kills.to_string(),
            at(50),
            at(99),
            at(100),
            failed.to_string(),
            accepted.len().to_string(),
            lost.to_string(),
        ]],
    );
    Ok(())
}

/// Makes the fault; gives the ID of the primary's process.
fn make(fault: Fault, seeker: &mut Seeker<'_>, shard: &Shard) -> Result<String, Error> {
    let pid = seeker.process_id(&shard.primary)?;
    let signal = match fault {
        Fault::Kill => "-9",
        Fault::Term => "-15",
        Fault::Handover => {
            let replica = shard.replicas.first().ok_or_else(|| refused("no replica"))?;
            let ask = redis::cmd("CLUSTER").arg("FAILOVER").to_owned();
            seeker.ask(replica, &ask).map_err(|e| refused(&e.to_string()))?;
            return Ok(pid);
        }
    };
    let sent = Command::new("kill").args([signal, &pid]).status().map_err(Error::io("kill"))?;
    if !sent.success() {
        return Err(refused(&format!("process {pid} could not be signalled")));
    }
    if fault == Fault::Kill {
        seeker.connections.remove(&shard.primary);
    }
    Ok(pid)
}

/// Writes one key after the other to a shard, and remembers those that were accepted.
struct Writer<'a, 'c> {
    seeker: &'a mut Seeker<'c>,
    tag: String,
    accepted: &'a mut Vec<String>,
    failed: usize,
}

impl Writer<'_, '_> {
    fn write(&mut self) -> Result<(), Error> {
        let key = format!("{}:{}", self.tag, self.accepted.len());
        let result = self.seeker.write(&key);
        match result {
            Ok(()) => self.accepted.push(key),
            Err(_) => self.failed += 1,
        }
        result
    }

    fn until_accepted(&mut self) -> Result<(), Error> {
        let start = clock::now();
        while let Err(error) = self.write() {
            if start.elapsed() > PATIENCE {
                return Err(Error::Refused(format!("no write for {PATIENCE:?}: {error}")));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The longest time without an accepted write, from `start` on until a write is accepted after it is over.
    fn gap_until(
        &mut self,
        start: std::time::Instant,
        is_over: impl Fn(&mut Seeker<'_>) -> bool,
    ) -> Result<Duration, Error> {
        let (mut last, mut longest) = (start, Duration::ZERO);
        loop {
            let over = is_over(self.seeker);
            self.until_accepted()?;
            let now = clock::now();
            longest = longest.max(now - last);
            last = now;
            if over {
                return Ok(longest);
            }
        }
    }
}

fn tag_in(slot: u16) -> String {
    (0..)
        .map(|number: u64| format!("{{gap{number}}}"))
        .find(|key| crate::slot::slot_of(key.as_bytes()) == slot)
        .unwrap_or_default()
}
