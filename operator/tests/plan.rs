//! Scenarios of the plan: a world as text, and the plan for it as text.
//!
//! Each file in `tests/plan/` holds cases: a title (`# fact`), the world one fact a line, `-- plan`, and
//! what is planned. `UPDATE=1 cargo test -p operator --test plan` writes what the plan says now.
//!
//! ```text
//! desired shards=1 replicas=1          also paused, set=NAME:VALUE, at-once=N, recovery=N; manual, window=HH:MM (for
//!                                      an hour), request=WORD: when primaries are handed back
//!                                      pause=SECONDS within=SECONDS: what who is made anew is given;
//!                                      max-error-rate=1% max-lag=1Mi: what stops it in the pause
//! rollout canary=demo-0-1 since=.. ..  what the account remembers of a change that takes restarts
//! restarting member=demo-0-1           the account has put down that it is restarted; uid=OTHER: so it was before
//! now 2026-01-01T00:00:00Z             unless it is that
//! whole since=2025-12-31T00:00:00Z     the account remembers that nothing was missing since; met=WORD: that request
//! topology epoch=7                     formed; members by their lines, two=demo-0-9 adds a gone one
//! slots shard=0 of=0-99                what a shard owns, where it is not dealt evenly; of=none: nothing
//! move id=4 from=0 to=1 of=0-9         a move under way
//! formed incarnation=1                 the account remembers a cluster
//! member demo-0-0 primary node=a zone=x the council's primary of its shard, in its role
//! member demo-0-1 replica              in sync; or: syncing, uncounted (by the council), unseen, lost, new, pending, stuck, ended,
//!                                      requests=N faults=N offset=N[/HISTORY]: what it reports; leaseless,
//!                                      rejoined (under a new ID; the vote is its former one's), voteless, former (it
//!                                      knows incarnation 1), hears-leader (of the council) ..
//! ```

#[path = "plan/world.rs"]
mod world;

use futures::FutureExt as _;
use operator::Error;
use operator::desired::Desired;
use operator::driver::{Driver, Recorded};
use operator::observed::Observed;
use operator::plan::{Plan, Step, plan};
use operator::round::round;
use operator::status::{Status, status};

fn text_of(plan: &Plan) -> String {
    let mut out = String::new();
    for planned in &plan.steps {
        out += &format!("{}: {}\n", planned.rule, planned.step);
    }
    for blocked in &plan.blocked {
        out += &format!("blocked {}: {}\n", blocked.reason, blocked.message);
    }
    if out.is_empty() { "settled\n".into() } else { out }
}

/// Runs every case of a file; with `UPDATE=1` it is written anew.
fn run(path: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut fresh = String::new();
    for case in text.split("\n\n").filter(|c| !c.trim().is_empty()) {
        let (facts, _) = case.split_once("-- plan").unwrap_or((case, ""));
        let (desired, observed) = world::parse(facts);
        let plan = plan(&desired, &observed);
        let status = status(&desired, &observed, &plan);
        let of = |type_: &str| {
            let c = status.condition(type_).unwrap();
            format!("{}({})", c.status, c.reason)
        };
        let account = format!(
            "ready={} {} progressing={} degraded={}",
            status.ready.as_deref().unwrap_or(""),
            of("Ready"),
            of("Progressing"),
            of("Degraded")
        );
        let rollout = status.rollout.as_ref().filter(|_| desired.rollout.canary_pause > 0);
        let rollout = rollout.map(|r| {
            let text = |key: &str, value: &Option<String>| {
                value.as_ref().map(|v| format!(" {key}={v}")).unwrap_or_default()
            };
            let since = text("since", &r.since) + &text("ready-since", &r.ready_since);
            let before =
                [(" requests-before=", r.requests_before), (" faults-before=", r.faults_before)];
            let before = before.iter().filter(|(_, n)| *n > 0);
            let since = before.fold(since, |all, (key, n)| format!("{all}{key}{n}"));
            let passed = if r.passed { " passed" } else { "" };
            let waiting = text("waiting-since", &r.waiting_since);
            format!("\nrollout{}{since}{passed}{waiting}", text("canary", &r.canary))
        });
        let account = account + &rollout.unwrap_or_default();
        let restarting = status.restarting.iter().map(|r| format!(" {}={}", r.member, r.uid));
        let restarting = restarting.collect::<String>();
        let account = account
            + &if restarting.is_empty() { restarting } else { format!("\nrestarting{restarting}") };
        let balanced = status.condition("Balanced");
        let balanced =
            balanced.map(|c| format!(" balanced={}({})\n{}", c.status, c.reason, c.message));
        let account = account + &balanced.unwrap_or_default();
        if !fresh.is_empty() {
            fresh.push('\n');
        }
        fresh += &format!("{}\n-- plan\n{}-- status\n{account}\n", facts.trim(), text_of(&plan));
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, fresh).unwrap();
        return;
    }
    assert_eq!(text, fresh, "{path}: look at the difference, then UPDATE=1");
}

#[test]
fn forming() {
    run("tests/plan/form.txt");
}

#[test]
fn recovering() {
    run("tests/plan/recover.txt");
}

#[test]
fn replacing() {
    run("tests/plan/replace.txt");
}

#[test]
fn scaling() {
    run("tests/plan/scale.txt");
}

#[test]
fn scaling_shards() {
    run("tests/plan/shards.txt");
}

#[test]
fn balancing() {
    run("tests/plan/balance.txt");
}

#[test]
fn rolling() {
    run("tests/plan/roll.txt");
}

/// A world that stands still: what a round does there is written down.
struct Still {
    observed: Observed,
    recorded: Option<Recorded>,
    done: Vec<String>,
}

impl Driver for Still {
    async fn scaffold(&mut self, _: &Desired) -> Result<(), Error> {
        Ok(())
    }

    async fn observe(&mut self, _: &Desired) -> Result<Observed, Error> {
        Ok(self.observed.clone())
    }

    async fn apply(&mut self, _: &Desired, step: &Step) -> Result<(), Error> {
        self.done.push(step.to_string());
        Ok(())
    }

    async fn record(&mut self, _: &Desired, status: &Status) -> Result<Recorded, Error> {
        let restarting = status.restarting.iter().map(|r| r.member.clone());
        self.done.push(format!("account restarting={}", restarting.collect::<String>()));
        self.recorded.ok_or_else(|| Error::world("write the status", "no"))
    }
}

#[test]
fn nobody_is_restarted_by_a_round_whose_account_was_not_taken() {
    let facts = "desired shards=1 replicas=2\ntopology epoch=9\nmember demo-0-0 primary outdated\n\
                 member demo-0-1 replica outdated\nmember demo-0-2 replica outdated";
    let lost = "desired shards=1 replicas=2\ntopology epoch=9\nmember demo-0-0 primary\n\
                member demo-0-1 replica\nmember demo-0-2 lost";
    for (recorded, facts, wanted) in [
        (Some(Recorded::Written), facts, "account restarting=demo-0-1; restart member=0-1"),
        (Some(Recorded::Outdated), facts, "account restarting=demo-0-1"),
        (None, facts, "account restarting=demo-0-1"),
        // What is missing is made all the same.
        (Some(Recorded::Outdated), lost, "account restarting=; create member=0-2"),
        (None, lost, "account restarting=; create member=0-2"),
    ] {
        let (desired, observed) = world::parse(facts);
        let mut driver = Still { observed, recorded, done: vec![] };
        let round = round(&mut driver, &desired).now_or_never().unwrap();
        assert_eq!(driver.done.join("; "), wanted, "{recorded:?}");
        assert_eq!(round.is_ok(), recorded.is_some());
    }
}
