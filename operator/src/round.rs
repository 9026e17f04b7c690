//! The only loop body: scaffold, observe, plan, apply, record.

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
    /// The step that failed and ended the round early, by its place in the plan.
    pub failed: Option<(usize, Error)>,
}

impl Round {
    /// How long the next round can wait.
    pub fn wait(&self) -> Duration {
        if self.failed.is_none() && self.plan.is_settled() { SETTLED } else { BUSY }
    }
}

/// One round. A step that fails ends it, and the next one plans afresh; the account of what was seen
/// is given all the same.
pub async fn round(driver: &mut impl Driver, desired: &Desired) -> Result<Round, Error> {
    driver.scaffold(desired).await?;
    let observed = driver.observe(desired).await?;
    let plan = plan(desired, &observed);
    let mut failed = None;
    for (at, planned) in plan.steps.iter().enumerate() {
        if let Err(error) = driver.apply(desired, &planned.step).await {
            failed = Some((at, error));
            break;
        }
    }
    let status = status(desired, &observed, &plan);
    if observed.past.as_deref() != Some(&status) {
        driver.record(desired, &status).await?;
    }
    Ok(Round { observed, plan, status, failed })
}
