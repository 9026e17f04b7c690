//! How long a shard accepts no write when its primary is killed, asked to end, stopped, or replaced in good order.
//!
//! One primary after the other gets the fault, while a client that follows redirections writes one key after the
//! other to a slot of that shard. At the end every accepted write is looked for.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use engine::topology::slot_of;
use rustix::process::{Pid, Signal};

use super::cluster::{Cluster, Pause};
use super::quantiles::Quantiles;
use super::seeker::{RETRY, Seeker, Shard};
use super::{Error, PATIENCE, now, table};

/// What happens to a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// SIGKILL: its connections break at once.
    Kill,
    /// SIGTERM: it is asked to end, and hands over first.
    Term,
    /// SIGSTOP until another one has accepted a write, then SIGCONT: to the others it is cut off meanwhile. The
    /// client sends nothing to it, as it would learn nothing but its own time-out.
    Stop,
    /// CLUSTER FAILOVER, as for an upgrade: nothing breaks.
    Handover,
}

impl Fault {
    fn word(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub fault: Fault,
    pub times: usize,
    /// So many other clients write all the time.
    pub load: usize,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The longest time without an accepted write, milliseconds, once for each fault.
    pub gaps_ms: Vec<f64>,
    pub failed_attempts: usize,
    pub writes: usize,
    /// Keys whose write was accepted, and that are not there in the end.
    pub lost: Vec<String>,
}

impl Outcome {
    pub fn table(&self, trial: &Trial) -> String {
        let gaps = Quantiles::of(self.gaps_ms.iter().copied());
        let at = |percent| gaps.at(percent).map_or_else(|| "-".into(), |gap| format!("{gap:.0}"));
        let load = match trial.load {
            0 => String::new(),
            clients => format!(", load {clients}"),
        };
        table::text(
            &[
                "fault",
                "times",
                "write gap ms p50",
                "p99",
                "max",
                "failed attempts",
                "writes",
                "lost",
            ],
            &[vec![
                format!("{}{load}", trial.fault.word()),
                self.gaps_ms.len().to_string(),
                at(50),
                at(99),
                at(100),
                self.failed_attempts.to_string(),
                self.writes.to_string(),
                self.lost.len().to_string(),
            ]],
        )
    }
}

/// # Errors
/// When the cluster does not come back from a fault, or the bench is interrupted.
pub fn run(cluster: &Cluster, trial: &Trial, tell: impl Fn(&str)) -> Result<Outcome, Error> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..trial.load {
            let is_over = &is_over;
            scope.spawn(move || write_on(cluster, number, is_over));
        }
        let done = faults(cluster, trial, tell);
        is_over.store(true, Ordering::Release);
        done
    })
}

/// Another client meanwhile: keys all over the slots, one after the other, as fast as they are accepted.
fn write_on(cluster: &Cluster, number: usize, is_over: &AtomicBool) {
    let mut seeker = Seeker::new(cluster);
    let keys = (0..10_000).cycle().take_while(|_| !is_over.load(Ordering::Acquire));
    for key in keys {
        if seeker.write(&format!("load:{number}:{key}")).is_err() {
            thread::sleep(RETRY);
        }
    }
}

fn faults(cluster: &Cluster, trial: &Trial, tell: impl Fn(&str)) -> Result<Outcome, Error> {
    let mut seeker = Seeker::new(cluster);
    let mut outcome = Outcome::default();
    let mut accepted = Vec::new();
    for round in 0..trial.times {
        let shards = seeker.await_whole()?;
        let shard = &shards[round % shards.len()];
        let tag = tag_in(shard.first_slot);
        let mut writer = Writer { seeker: &mut seeker, tag, accepted: &mut accepted, failed: 0 };
        writer.until_accepted()?;
        let start = now();
        let made = make(trial.fault, writer.seeker, shard)?;
        let gap = writer.gap_until(start, |seeker| made.is_over(seeker, shard))?;
        outcome.failed_attempts += writer.failed;
        made.end(&mut seeker);
        let (number, gap_ms) = (round + 1, gap.as_secs_f64() * 1e3);
        let Shard { primary, first_slot, .. } = shard;
        tell(&format!(
            "{number} of {}: {primary} (slot {first_slot}): {gap_ms:.0} ms",
            trial.times
        ));
        outcome.gaps_ms.push(gap_ms);
    }
    seeker.await_whole()?;
    outcome.writes = accepted.len();
    for key in accepted {
        if !seeker.has(&key)? {
            outcome.lost.push(key);
        }
    }
    Ok(outcome)
}

/// A fault that was made.
enum Made<'c> {
    Killed,
    Asked(Pid),
    Stopped(Pause<'c>),
    Replaced,
}

fn make<'c>(fault: Fault, seeker: &mut Seeker<'c>, shard: &Shard) -> Result<Made<'c>, Error> {
    let (cluster, primary) = (seeker.cluster(), &shard.primary);
    match fault {
        Fault::Kill => {
            cluster.signal(seeker.process_id(primary)?, Signal::KILL)?;
            seeker.forget(primary);
            Ok(Made::Killed)
        }
        Fault::Term => {
            let pid = seeker.process_id(primary)?;
            cluster.signal(pid, Signal::TERM)?;
            Ok(Made::Asked(pid))
        }
        Fault::Stop => {
            let pause = cluster.pause(seeker.process_id(primary)?)?;
            seeker.avoid(Some(primary));
            Ok(Made::Stopped(pause))
        }
        Fault::Handover => {
            let none = || Error::Refused(format!("{primary} has no replica"));
            let replica = shard.replicas.first().ok_or_else(none)?;
            let refused = |e| Error::Refused(format!("{replica}: CLUSTER FAILOVER: {e}"));
            seeker.ask(replica, &["CLUSTER", "FAILOVER"]).map_err(refused)?;
            Ok(Made::Replaced)
        }
    }
}

impl Made<'_> {
    /// The next write that is accepted is one after the fault.
    fn is_over(&self, seeker: &mut Seeker<'_>, shard: &Shard) -> bool {
        match self {
            // The primary accepts nothing, so that whatever is accepted is so by another one.
            Self::Killed | Self::Stopped(_) => true,
            Self::Asked(pid) => !Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists(),
            Self::Replaced => seeker.is_replica(&shard.primary),
        }
    }

    /// A primary that was stopped goes on.
    fn end(self, seeker: &mut Seeker<'_>) {
        if let Self::Stopped(pause) = self {
            drop(pause);
            seeker.avoid(None);
        }
    }
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
        let start = now();
        while let Err(error) = self.write() {
            self.seeker.cluster().check()?;
            if start.elapsed() > PATIENCE {
                return Err(Error::Refused(format!("no write for {PATIENCE:?}: {error}")));
            }
            thread::sleep(RETRY);
        }
        self.seeker.cluster().check()
    }

    /// The longest time without an accepted write, from `start` on until a write is accepted after it is over.
    fn gap_until(
        &mut self,
        start: Instant,
        is_over: impl Fn(&mut Seeker<'_>) -> bool,
    ) -> Result<Duration, Error> {
        let (mut last, mut longest) = (start, Duration::ZERO);
        loop {
            let over = is_over(self.seeker);
            if !over && start.elapsed() > PATIENCE {
                return Err(Error::Refused(format!("nobody took over within {PATIENCE:?}")));
            }
            self.until_accepted()?;
            let now = now();
            longest = longest.max(now - last);
            last = now;
            if over {
                return Ok(longest);
            }
        }
    }
}

/// A tag whose keys are in that slot.
fn tag_in(slot: u16) -> String {
    (0..)
        .map(|number: u64| format!("{{gap{number}}}"))
        .find(|key| slot_of(key.as_bytes()) == slot)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_gaps_and_losses() {
        let outcome = Outcome {
            gaps_ms: vec![900.4, 700.0, 800.0],
            failed_attempts: 7,
            writes: 12,
            lost: vec!["{gap}:1".into()],
        };
        let trial = Trial { fault: Fault::Stop, times: 3, load: 6 };
        let table = outcome.table(&trial);
        let row: Vec<&str> = table.lines().nth(2).unwrap().split('|').map(str::trim).collect();
        assert_eq!(row, ["", "stop, load 6", "3", "800", "900", "900", "7", "12", "1", ""]);
    }
}
