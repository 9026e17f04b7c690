//! The end-to-end tests: a table of names, what each needs, and the function.
//!
//! A test gets a namespace of its own on a Kubernetes with Larder installed. It never sleeps to wait for something:
//! it awaits the condition. What it needs and the provider does not have makes it skipped, by name and with the reason.

mod all;
pub mod captive;
mod care;
mod change;
mod chart;
mod control;
mod cut;
pub mod form;
mod kill;
mod lost;
mod nodes;
mod plain;
mod secured;
mod volumes;

use crate::clock::{self, seconds};
use crate::failure::{Failure, Result};
use crate::figures;
use crate::provider::{Fault, Provider};
use crate::world::{Room, World};
use futures::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

/// What a test needs from its surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Pods can be reached by their addresses from this machine.
    Pods,
    Fault(Fault),
    /// Nothing of Larder: the cluster alone.
    Bare,
}

pub struct Test {
    pub name: &'static str,
    pub needs: &'static [Need],
    run: fn(Arc<Room>) -> BoxFuture<'static, Result>,
}

macro_rules! test {
    ($module:ident :: $name:ident $(, $need:expr)*) => {
        Test { name: stringify!($name), needs: &[$($need),*], run: |room| Box::pin($module::$name(room)) }
    };
}

const CUT: Need = Need::Fault(Fault::NodeCut);
const WIRE: Need = Need::Fault(Fault::NodeWire);
const POWER: Need = Need::Fault(Fault::NodePower);
const KILL: Need = Need::Fault(Fault::ContainerKill);
const API: Need = Need::Fault(Fault::ApiStop);

/// All tests on Kubernetes, in the order in which they run.
pub const TESTS: &[Test] = &[
    test!(nodes::pods_reach_each_other_by_name, Need::Bare),
    test!(nodes::volumes_bind_and_keep_data, Need::Bare),
    test!(nodes::faults_are_made_and_undone, Need::Bare, CUT, WIRE, POWER, KILL, API),
    test!(form::forms_and_serves, Need::Pods),
    test!(form::clients_of_all_kinds_fill_it, Need::Pods),
    test!(kill::primary_deleted_or_killed_ten_times, Need::Pods, KILL),
    test!(kill::empty_restart_never_wipes_its_replicas, Need::Pods, KILL),
    test!(cut::node_with_one_primary_is_cut_off, Need::Pods, CUT),
    test!(cut::node_with_two_primaries_is_cut_off, Need::Pods, CUT, KILL),
    test!(cut::node_with_the_operator_is_cut_off, Need::Pods, CUT),
    test!(cut::deaf_primary_is_replaced, Need::Pods, WIRE),
    test!(cut::mute_primary_is_replaced, Need::Pods, WIRE),
    test!(cut::quorum_is_linearizable_across_a_cut, Need::Pods, CUT),
    test!(cut::quorum_is_linearizable_on_bad_wires, Need::Pods, WIRE),
    test!(control::failover_without_operator_and_api, Need::Pods, API, KILL),
    test!(control::failover_without_dns, Need::Pods, KILL),
    test!(all::all_pods_deleted_at_once, Need::Pods),
    test!(all::all_nodes_restarted, Need::Pods, POWER),
    test!(lost::council_lost_goes_on_when_told, Need::Pods),
    test!(lost::shard_of_two_goes_on_alone, Need::Pods, CUT),
    test!(lost::shard_of_two_waits_for_the_other, Need::Pods, CUT),
    test!(secured::tls_and_memcached_outlive_their_primary, Need::Pods),
    test!(plain::clients_that_follow_nothing_feel_no_eviction, Need::Pods),
    test!(change::all_members_rolled_under_load, Need::Pods),
    test!(change::primaries_evicted_under_load, Need::Pods),
    test!(change::shards_added_and_taken_away_under_load, Need::Pods),
    test!(care::primaries_are_handed_back_when_asked, Need::Pods, KILL),
    test!(care::a_bad_change_stops_at_its_first_member, Need::Pods),
    test!(volumes::kept_volumes_bring_the_data_back, Need::Pods),
    test!(volumes::deleted_volumes_leave_nothing, Need::Pods),
    test!(chart::examples_become_ready),
    test!(chart::invalid_manifests_are_refused),
    test!(chart::helm_test_passes),
];

/// What came of some tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// A test takes at most this long, whatever it waits for.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs tests one after the other.
pub async fn run(world: &Arc<World>, tests: &[&Test]) -> Tally {
    let mut tally = Tally::default();
    for test in tests {
        if let Some(why) = missing(test, world.provider.as_ref()) {
            println!("skip  {}: {why}", test.name);
            tally.skipped += 1;
            continue;
        }
        let start = clock::now();
        figures::begin(test.name);
        let result = one(world, test).await;
        let took = seconds(start.elapsed());
        match result {
            Ok(()) => {
                println!("pass  {} ({took})", test.name);
                tally.passed += 1;
            }
            Err(failure) => {
                println!("FAIL  {} ({took}): {failure}", test.name);
                tally.failed += 1;
            }
        }
    }
    tally
}

async fn one(world: &Arc<World>, test: &Test) -> Result {
    let room = Arc::new(world.room(test.name).await?);
    let work = AssertUnwindSafe((test.run)(room.clone())).catch_unwind();
    let result = match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Failure::new("it panicked")),
        Err(_) => Err(Failure::new(format!("not done within {}", seconds(LIMIT)))),
    };
    if result.is_err() {
        repair(world);
        println!("      what was seen is in {}", room.diagnose(test.name).await.display());
    }
    let left = room.leave().await;
    result.and(left)
}

/// A test that failed half-way may have left a fault behind: the next one starts with whole nodes.
fn repair(world: &World) {
    world
        .fault(|provider| {
            if let Err(failure) = provider.repair() {
                println!("      repair: {failure}");
            }
            Ok(())
        })
        .ok();
}

fn missing(test: &Test, provider: &dyn Provider) -> Option<String> {
    test.needs.iter().find_map(|need| match need {
        Need::Pods => provider.pods_unreachable(),
        Need::Fault(fault) => provider.cannot(*fault),
        Need::Bare => None,
    })
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = TESTS.iter().map(|test| test.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TESTS.len());
    }
}
