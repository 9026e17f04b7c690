//! The only loop body: scaffold, observe, plan, apply, record.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Error;
use crate::desired::Desired;
use crate::driver::Driver;
use crate::observed::Observed;
use crate::plan::{Plan, plan};
use crate::status::{Status, status};

/// When to look again while something is under way, or missing.
pub const BUSY: Duration = Duration::from_secs(1);
/// When to look again once all is as wished; events cut it short.
pub const SETTLED: Duration = Duration::from_secs(30);

/// What one round saw and did, for events, metrics and progress lines.
#[derive(Debug)]
pub struct Round {
    pub observed: Observed,
    pub plan: Plan,
    pub status: Status,
    /// What became of each step of the plan, in its order.
    pub fates: Vec<Fate>,
}

/// What became of a step.
#[derive(Debug)]
pub enum Fate {
    Done,
    Failed(Error),
    /// Not tried, because an earlier step of the same shard failed.
    Skipped,
}

impl Round {
    /// How long the next round can wait.
    pub fn wait(&self) -> Duration {
        if self.plan.is_settled() { SETTLED } else { BUSY }
    }
}

/// One round. A step that fails ends the round for its shard, so that one member that refuses does not
/// hold up the others; the next round plans afresh, and the account of what was seen is given anyway.
pub async fn round(driver: &mut impl Driver, desired: &Desired) -> Result<Round, Error> {
    driver.scaffold(desired).await?;
    let observed = driver.observe(desired).await?;
    let plan = plan(desired, &observed);
    let mut fates = Vec::with_capacity(plan.steps.len());
    let mut given_up = BTreeSet::new();
    for planned in &plan.steps {
        fates.push(if given_up.contains(&planned.shard) {
            Fate::Skipped
        } else if let Err(error) = driver.apply(desired, &planned.step).await {
            given_up.insert(planned.shard);
            Fate::Failed(error)
        } else {
            Fate::Done
        });
    }
    let status = status(desired, &observed, &plan);
    if observed.past.as_deref() != Some(&status) {
        driver.record(desired, &status).await?;
    }
    Ok(Round { observed, plan, status, fates })
}
