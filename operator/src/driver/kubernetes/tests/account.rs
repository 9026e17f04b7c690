//! The account belongs to whoever gave it last: nobody else writes over what he has not read.

use serde_json::{Value, json};

use super::crash::{CLUSTER, settle, world};
use super::fake::{Fake, Memories};
use crate::driver::kubernetes::reconcile::reconcile;

/// A cluster that was formed, with an account that another operator gives of it meanwhile.
fn formed() -> Fake {
    let fake = world();
    edit(&fake, |c| {
        c["status"] = json!({"observedGeneration": 1, "clusterId": "c1", "shardCount": 2})
    });
    fake
}

fn edit(fake: &Fake, change: impl FnOnce(&mut Value)) {
    let mut cluster = fake.objects()[CLUSTER].clone();
    change(&mut cluster);
    fake.put(CLUSTER, cluster);
}

fn status(fake: &Fake) -> Value {
    fake.objects()[CLUSTER]["status"].clone()
}

#[tokio::test]
async fn account_that_somebody_else_gave_meanwhile_stands() {
    let (fake, mut memories) = (formed(), Memories::new());
    settle(&fake, &mut memories).await;
    edit(&fake, |c| c["metadata"]["generation"] = json!(2));
    let context = fake.context(memories);
    // It is given after this operator looked at the object.
    edit(&fake, |c| c["status"]["restarting"] = json!([{"member": "demo-0-0", "uid": "u"}]));
    let theirs = status(&fake);
    let object = context.stores.clusters.state().remove(0);
    reconcile(object, context.clone()).await.unwrap();
    assert_eq!(status(&fake), theirs);
    // The next round begins with it. No body of that uid is there: the restart is over.
    let mut memories = std::mem::take(&mut *context.memories.lock().await);
    settle(&fake, &mut memories).await;
    assert_eq!(status(&fake)["observedGeneration"], 2);
    assert_eq!(status(&fake)["restarting"], Value::Null);
}

#[tokio::test]
async fn manifest_that_changed_since_the_last_account_was_given_hinders_none() {
    let (fake, mut memories) = (formed(), Memories::new());
    settle(&fake, &mut memories).await;
    for generation in 2..5 {
        edit(&fake, |c| c["metadata"]["generation"] = json!(generation));
        assert!(fake.round(&mut memories).await);
        assert_eq!(status(&fake)["observedGeneration"], generation);
    }
}

/// A spec that fits no type leaves nothing of the object to read but what is asked for in its raw form.
#[tokio::test]
async fn operator_that_remembers_nothing_keeps_the_account_of_a_manifest_that_it_cannot_read() {
    let fake = formed();
    edit(&fake, |c| c["spec"]["tolerations"] = json!([{"key": 5}]));
    settle(&fake, &mut Memories::new()).await;
    let status = status(&fake);
    assert_eq!(status["clusterId"], "c1");
    assert_eq!(status["plan"]["blocked"][0]["reason"], "InvalidSpec");
}
