//! Least privilege: what the operator asks an API server for is what the chart grants, and no more.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::events::EventType;
use serde_json::json;

use super::crash::{CLUSTER, CORE, settle, world};
use super::fake::{Fake, Grant, Memories};
use super::observed;
use crate::desired::{Desired, Seat};
use crate::driver::Driver;
use crate::driver::kubernetes::lease::Election;
use crate::driver::kubernetes::reconcile::{Kubernetes, Memory};
use crate::driver::kubernetes::{Settings, controller};
use crate::health::Health;
use crate::plan::Step;

const SEAT: Seat = Seat::Data { shard: 0, index: 0 };

/// The rules in the chart's templates, those of its users' roles left out.
fn granted() -> BTreeSet<Grant> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/larder/templates");
    let read = |name: &str| std::fs::read_to_string(chart.join(name)).unwrap();
    let rbac = read("rbac.yaml");
    let (operators, _) = rbac.split_once("rbac.aggregate").unwrap();
    let text = format!("{}\n{operators}", read("_helpers.tpl"));
    let list = |line: &str| -> Vec<String> {
        let inner = line.split_once('[').unwrap().1.split_once(']').unwrap().0;
        inner.split(',').map(|w| w.trim().trim_matches('"').to_owned()).collect()
    };
    let (mut groups, mut resources, mut out) = (Vec::new(), Vec::new(), BTreeSet::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with("- apiGroups:") {
            groups = list(line);
        } else if line.starts_with("resources: [") {
            resources = list(line);
        } else if line.starts_with("verbs:") {
            for verb in list(line) {
                for group in &groups {
                    out.extend(resources.iter().map(|r| (verb.clone(), group.clone(), r.clone())));
                }
            }
        }
    }
    out
}

/// All watches, by the real controller.
async fn watch(fake: &Fake) {
    let settings = Arc::new(Settings::default());
    let work = controller::work(fake.client(), settings, Arc::new(Health::default()), None);
    let watched = |asked: &BTreeSet<Grant>| asked.iter().filter(|g| g.0 == "watch").count() >= 9;
    let limit = tokio::time::timeout(Duration::from_secs(60), fake.until_asked(watched));
    tokio::select! {
        () = work => panic!("the controller ended"),
        done = limit => done.unwrap(),
    }
}

/// What rounds alone do not come to: a member that goes with its volume, a shard without a primary's
/// Service, a role that moved, a volume that is waited for, an event that is told again.
async fn rare_things(fake: &Fake) {
    let stray = json!({"metadata": {
        "name": "demo-9-primary", "namespace": "shop", "labels": {"larder.dev/cluster": "demo"},
    }});
    fake.put(&format!("{CORE}/services/demo-9-primary"), stray);
    let mut cluster = fake.objects()[CLUSTER].clone();
    cluster["metadata"]["generation"] = json!(2);
    cluster["spec"]["labels"] = json!({"team": "web"});
    fake.put(CLUSTER, cluster);
    fake.put("/api/v1/nodes/n", json!({"metadata": {"name": "n"}}));
    let path = format!("{CORE}/pods/demo-0-0");
    let mut pod = fake.objects()[&path].clone();
    pod["metadata"]["uid"] = json!("p-1");
    pod["status"] = json!({"phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
    }]});
    fake.put(&path, pod);
    let path = format!("{CORE}/persistentvolumeclaims/demo-0-0-data");
    let mut claim = fake.objects()[&path].clone();
    claim["spec"]["volumeName"] = json!("pv-1");
    fake.put(&path, claim);
    settle(fake, &mut Memories::new()).await;

    let context = fake.context(Memories::new());
    let object = context.stores.clusters.state().remove(0);
    let cluster = object.0.as_ref().unwrap();
    let desired = Desired::of(cluster).unwrap();
    let mut memory = Memory { uid: "u-1".into(), ..Memory::default() };
    let mut driver = Kubernetes::new(&context, cluster, "shop", &mut memory);
    let seen = driver.observe(&desired).await.unwrap().members[&SEAT].sight();
    let gone = Step::DeleteMember { seat: SEAT, seen, disk: true, force: false };
    driver.carry_out(&desired, &gone).await.unwrap();
    driver.label_roles(&desired, &observed("a", &[(SEAT, "a")])).await.unwrap();
    for _ in 0..2 {
        context.publish(cluster, EventType::Normal, "Ready", "again").await;
    }
}

#[tokio::test]
async fn operator_asks_for_all_that_the_chart_grants_and_for_nothing_else() {
    let fake = world();
    watch(&fake).await;
    settle(&fake, &mut Memories::new()).await;
    rare_things(&fake).await;
    let mut election = Election::new(fake.client(), "larder-system", "one");
    election.acquire().await;
    Election::new(fake.client(), "larder-system", "one").acquire().await;

    let mut granted = granted();
    // No request: an admission plug-in looks for it where owner references block deletion.
    let plug_in = ("update".into(), "larder.dev".into(), "cacheclusters/finalizers".into());
    assert!(granted.remove(&plug_in));
    let asked = fake.asked();
    let missing: Vec<_> = asked.difference(&granted).collect();
    assert!(missing.is_empty(), "asked for and not granted: {missing:?}");
    let unused: Vec<_> = granted.difference(&asked).collect();
    assert!(unused.is_empty(), "granted and never asked for: {unused:?}");
}
