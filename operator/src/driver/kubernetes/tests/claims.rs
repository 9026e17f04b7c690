//! Two operators at once: what one of them claims for a member, the other does not delete by an older look.

use engine::topology::Member;
use serde_json::{Value, json};

use super::crash::{CLUSTER, CORE, settle, world};
use super::fake::{Fake, Memories};
use crate::desired::{Desired, Seat};
use crate::driver::Driver;
use crate::driver::kubernetes::build::CLAIMED;
use crate::driver::kubernetes::reconcile::{Kubernetes, Memory};
use crate::observed::Sight;
use crate::plan::Step;

const SEAT: Seat = Seat::Data { shard: 0, index: 0 };

fn pod() -> String {
    format!("{CORE}/pods/demo-0-0")
}

fn volume() -> String {
    format!("{CORE}/persistentvolumeclaims/demo-0-0-data")
}

/// An operator that looks now, and one step of its.
async fn act(fake: &Fake, step: impl FnOnce(Sight) -> Step) -> Result<(), crate::Error> {
    let cluster = serde_json::from_value(fake.objects()[CLUSTER].clone()).unwrap();
    let desired = Desired::of(&cluster).unwrap();
    let context = fake.context(Memories::new());
    let mut memory = Memory { uid: "u-1".into(), ..Memory::default() };
    let mut driver = Kubernetes::new(&context, &cluster, "shop", &mut memory);
    let seen = driver.observe(&desired).await.unwrap().members[&SEAT].sight();
    driver.carry_out(&desired, &step(seen)).await
}

fn delete(seen: Sight) -> Step {
    Step::DeleteMember { seat: SEAT, seen, disk: true, force: false }
}

fn join(_: Sight) -> Step {
    Step::Join { member: Member { name: "demo-0-0".into(), ..Member::default() }, seen: 1 }
}

/// What an operator sees of the seat now.
async fn look(fake: &Fake) -> Sight {
    let mut sight = None;
    let nothing = |seen: Sight| {
        sight = Some(seen.clone());
        Step::DeleteMember { seat: SEAT, seen: Sight::default(), disk: false, force: false }
    };
    act(fake, nothing).await.unwrap();
    sight.unwrap()
}

fn claimed(fake: &Fake, path: &str) -> Value {
    fake.objects()[path]["metadata"]["annotations"][CLAIMED].clone()
}

#[tokio::test]
async fn what_was_claimed_since_it_was_seen_is_not_deleted() {
    let fake = world();
    settle(&fake, &mut Memories::new()).await;
    let former = look(&fake).await;
    // No council in this world takes the wish; the claim comes before it.
    let refused = act(&fake, join).await.unwrap_err().to_string();
    assert!(!refused.contains("claim"), "{refused}");
    assert!(claimed(&fake, &pod()).is_string() && claimed(&fake, &volume()).is_string());

    act(&fake, |_| delete(former)).await.unwrap();
    assert!(fake.objects().contains_key(&pod()), "the body was claimed, and stays");
    assert!(fake.objects().contains_key(&volume()), "the disk was claimed, and stays");

    act(&fake, delete).await.unwrap();
    assert!(!fake.objects().contains_key(&pod()) && !fake.objects().contains_key(&volume()));
}

#[tokio::test]
async fn disk_of_a_body_that_was_replaced_stays() {
    let fake = world();
    settle(&fake, &mut Memories::new()).await;
    let mut former = look(&fake).await;
    if let Some(body) = &mut former.body {
        body.uid = "another".into();
    }
    act(&fake, |_| delete(former)).await.unwrap();
    assert!(fake.objects().contains_key(&volume()));
}

#[tokio::test]
async fn member_whose_disk_is_being_deleted_is_not_let_in() {
    let fake = world();
    settle(&fake, &mut Memories::new()).await;
    let mut going = fake.objects()[&volume()].clone();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    fake.put(&volume(), going);
    let refused = act(&fake, join).await.unwrap_err().to_string();
    assert!(refused.contains("it is being deleted"), "{refused}");
}
