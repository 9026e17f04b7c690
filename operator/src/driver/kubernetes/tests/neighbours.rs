//! What one cluster suffers, another does not feel.

use std::sync::Arc;
use std::time::Duration;

use super::crash::{CLUSTER, CORE, world};
use super::fake::Fake;
use crate::driver::kubernetes::{Settings, controller};
use crate::health::Health;

/// Far longer than anything takes here.
const LIMIT: Duration = Duration::from_secs(60);

/// The cluster `demo` in `shop`, and another one of the name in a namespace that comes before it.
fn two_namespaces() -> Fake {
    let fake = world();
    let mut other = fake.objects()[CLUSTER].clone();
    other["metadata"]["namespace"] = "attic".into();
    other["metadata"]["uid"] = "u-2".into();
    fake.put(&CLUSTER.replace("/shop/", "/attic/"), other);
    fake
}

/// The controllers of these scopes run until the members of `shop` are made, though the other namespace
/// has been asked for, too.
async fn shop_is_served(fake: &Fake, scopes: &[Option<&str>]) {
    let (settings, health) = (Arc::new(Settings::default()), Arc::new(Health::default()));
    let work = scopes.iter().map(|scope| {
        let scope = scope.map(str::to_owned);
        controller::work(fake.client(), settings.clone(), health.clone(), scope)
    });
    let work = futures::future::join_all(work);
    let last = format!("{CORE}/pods/demo-1-1");
    let served = fake.until(|fake| fake.objects().contains_key(&last) && fake.suffered() > 0);
    tokio::select! {
        _ = work => panic!("the controllers ended"),
        done = tokio::time::timeout(LIMIT, served) => done.unwrap(),
    }
    let there = fake.objects();
    assert!(
        !there.keys().any(|path| path.contains("/attic/pods/")),
        "nothing was made in the attic"
    );
}

#[tokio::test]
async fn a_cluster_whose_round_hangs_holds_up_no_other() {
    let fake = two_namespaces();
    fake.hang("attic");
    shop_is_served(&fake, &[None]).await;
}

#[tokio::test]
async fn a_namespace_that_may_not_be_touched_holds_up_no_other() {
    for scopes in [&[None][..], &[Some("attic"), Some("shop")]] {
        let fake = two_namespaces();
        fake.close("attic");
        shop_is_served(&fake, scopes).await;
    }
}
