//! The only loop body: scaffold, observe, plan, record, apply.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Error;
use crate::desired::Desired;
use crate::driver::{Driver, Recorded};
use crate::observed::Observed;
use crate::plan::{Plan, Step, plan};
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
    /// What became of the account.
    pub recorded: Recorded,
    /// What became of each step of the plan, in its order.
    pub fates: Vec<Fate>,
}

/// What became of a step.
#[derive(Debug)]
pub enum Fate {
    Done,
    Failed(Error),
    /// Not tried: an earlier step of the same shard failed, or the account could not be given that has to come first.
    Skipped,
}

impl Round {
    /// How long the next round can wait.
    pub fn wait(&self) -> Duration {
        let is_over = self.plan.is_settled() && self.recorded == Recorded::Written;
        if is_over { SETTLED } else { BUSY }
    }
}

/// One round. A step that fails ends the round for its shard, so that one member that refuses does not
/// hold up the others; the next round plans afresh.
///
/// The account comes before the steps, for it says who is restarted: nobody is whom it could not name, or while
/// somebody else gave one since this round looked. All other steps say themselves what must not have changed.
pub async fn round(driver: &mut impl Driver, desired: &Desired) -> Result<Round, Error> {
    driver.scaffold(desired).await?;
    let observed = driver.observe(desired).await?;
    let plan = plan(desired, &observed);
    let status = status(desired, &observed, &plan);
    let recorded = if observed.past.as_deref() == Some(&status) {
        Ok(Recorded::Written)
    } else {
        driver.record(desired, &status).await
    };
    let may_restart = matches!(recorded, Ok(Recorded::Written));
    let mut fates = Vec::with_capacity(plan.steps.len());
    let mut given_up = BTreeSet::new();
    for planned in &plan.steps {
        let has_to_wait = matches!(planned.step, Step::RestartMember { .. }) && !may_restart;
        fates.push(if has_to_wait || given_up.contains(&planned.shard) {
            Fate::Skipped
        } else if let Err(error) = driver.apply(desired, &planned.step).await {
            given_up.insert(planned.shard);
            Fate::Failed(error)
        } else {
            Fate::Done
        });
    }
    Ok(Round { observed, plan, status, recorded: recorded?, fates })
}
