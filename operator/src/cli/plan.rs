//! `larder plan`: what would be done for a local cluster, and why.

use super::PlanArgs;
use crate::Error;
use crate::driver::local;
use crate::plan::{Plan, plan as plan_of};

pub(super) async fn plan(args: PlanArgs) -> Result<(), Error> {
    let manifest = super::manifest::read(&args.manifest.file)?;
    let desired = manifest.desired;
    let dir = args.manifest.dir(&desired.name);
    let observed = local::look(&dir, &desired).await?;
    print!("{}", text(&desired.name, &plan_of(&desired, &observed)));
    Ok(())
}

fn text(cluster: &str, plan: &Plan) -> String {
    let mut out = String::new();
    for planned in &plan.steps {
        out += &format!("{}: {}\n    because {}\n", planned.rule, planned.step, planned.why);
    }
    for blocked in &plan.blocked {
        out += &format!("waiting ({}): {}\n", blocked.reason, blocked.message);
    }
    if out.is_empty() {
        out = format!("{cluster}: nothing to do\n");
    }
    out
}
