//! The wiring: watches into stores, stores into the controller, one scope per watched namespace.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use crds::CacheCluster;
use futures::stream::SelectAll;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{DeserializeGuard, NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::controller::{Config, Error as ControllerError};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{Controller, Predicate, WatchStreamExt, predicates};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::Settings;
use super::build::CLUSTER;
use super::lease::Election;
use super::reconcile::{Context, error_policy, reconcile};
use super::stores::Stores;
use crate::Error;
use crate::health::{self, Health};

/// Clusters whose rounds run at the same time: a round mostly waits for answers.
const AT_ONCE: u16 = 64;

/// What wakes a cluster up.
type Wakes =
    SelectAll<futures::stream::BoxStream<'static, ObjectRef<DeserializeGuard<CacheCluster>>>>;

/// Runs the operator until `stop`, or until the lease is lost.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), Error> {
    // The one provider of the tree; a second call finds it there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let settings = Arc::new(settings);
    let health = Arc::new(Health::default());
    let listener = health::bind(settings.health_address)
        .await
        .map_err(|e| Error::world(format!("listen on {}", settings.health_address), e))?;
    let serving = tokio::spawn(health::serve(listener, health.clone()));
    let result = lead(settings, health, stop).await;
    serving.abort();
    result
}

async fn lead(
    settings: Arc<Settings>,
    health: Arc<Health>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let client =
        Client::try_default().await.map_err(|e| Error::world("reach the API server", e))?;
    // Standing by is being ready: whoever waits for this pod need not wait for the lease.
    health.set_ready(true);
    let mut election = Election::new(client.clone(), &settings.lease_namespace, &settings.identity);
    tokio::pin!(stop);
    if settings.leader_election {
        tokio::select! {
            () = election.acquire() => {}
            () = &mut stop => return Ok(()),
        }
    }
    tracing::info!(identity = settings.identity, "leading");
    health.metrics.leader(true);
    let scopes = scopes(&settings);
    let work = futures::future::join_all(
        scopes
            .into_iter()
            .map(|scope| work(client.clone(), settings.clone(), health.clone(), scope)),
    );
    let result = if settings.leader_election {
        tokio::select! {
            _ = work => Ok(()),
            // Everything that is under way is dropped with `work`: nobody acts without the lease.
            () = election.hold() => Err(Error::world("keep the lease", "somebody else may hold it")),
            () = &mut stop => Ok(()),
        }
    } else {
        tokio::select! {
            _ = work => Ok(()),
            () = &mut stop => Ok(()),
        }
    };
    if settings.leader_election && result.is_ok() {
        election.release().await;
    }
    result
}

/// The namespaces to watch; `None`: all of them, in one scope.
fn scopes(settings: &Settings) -> Vec<Option<String>> {
    let named: Vec<_> =
        settings.watch_namespaces.iter().filter(|n| !n.is_empty()).cloned().map(Some).collect();
    if named.is_empty() { vec![None] } else { named }
}

/// Watches one scope and reconciles what is in it.
pub(super) async fn work(
    client: Client,
    settings: Arc<Settings>,
    health: Arc<Health>,
    scope: Option<String>,
) {
    let mut wakes = Wakes::new();
    let namespace = scope.as_deref();
    let (clusters, writer) = reflector::store();
    let stores = Stores {
        clusters: clusters.clone(),
        pods: keep::<Pod>(&client, namespace, &mut wakes),
        claims: keep::<PersistentVolumeClaim>(&client, namespace, &mut wakes),
        secrets: keep::<Secret>(&client, namespace, &mut wakes),
        services: keep::<PartialObjectMeta<Service>>(&client, namespace, &mut wakes),
        config_maps: keep::<PartialObjectMeta<ConfigMap>>(&client, namespace, &mut wakes),
        budgets: keep::<PartialObjectMeta<PodDisruptionBudget>>(&client, namespace, &mut wakes),
        policies: keep::<PartialObjectMeta<NetworkPolicy>>(&client, namespace, &mut wakes),
        nodes: settings.watch_nodes.then(|| nodes(&client, &mut wakes)),
    };
    let reporter =
        Reporter { controller: "larder".into(), instance: Some(settings.identity.clone()) };
    let context = Arc::new(Context {
        client: client.clone(),
        settings,
        stores,
        recorder: Recorder::new(client.clone(), reporter),
        health,
        memories: Mutex::new(BTreeMap::new()),
    });
    let api: Api<DeserializeGuard<CacheCluster>> = api(&client, namespace);
    let changed = predicates::generation.combine(predicates::finalizers);
    let trigger = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(changed, kube::runtime::PredicateConfig::default());
    let started = context.clone();
    Controller::for_stream(trigger, clusters)
        .with_config(Config::default().concurrency(AT_ONCE))
        .reconcile_on(wakes)
        .run(
            move |object, context: Arc<Context>| async move {
                // A store that is not filled yet looks like a world in which everything is lost.
                context.stores.filled().await?;
                reconcile(object, context).await
            },
            error_policy,
            started,
        )
        .for_each(|done| async {
            match done {
                Ok(_) => {}
                Err(ControllerError::ObjectNotFound(gone)) => {
                    context.forget(&gone.namespace.unwrap_or_default(), &gone.name).await;
                }
                // Logged where it happened.
                Err(ControllerError::ReconcilerFailed(..)) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        })
        .await;
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Keeps a store of what carries our label, and wakes the cluster that an object belongs to.
fn keep<K>(client: &Client, namespace: Option<&str>, wakes: &mut Wakes) -> Store<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let api: Api<K> = api(client, namespace);
    let (store, writer) = reflector::store();
    let config = watcher::Config::default().labels(CLUSTER);
    let stream = watcher(api, config)
        .default_backoff()
        .modify(|object: &mut K| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects();
    wakes.push(wake(stream, |object: &K| {
        let cluster = object.labels().get(CLUSTER)?;
        Some(ObjectRef::new(cluster).within(&object.namespace()?))
    }));
    store
}

/// Keeps a store of nodes, without their lists of images. Nothing wakes by them: heartbeats are many,
/// and what matters of a node shows in its pods.
fn nodes(client: &Client, wakes: &mut Wakes) -> Store<Node> {
    let (store, writer) = reflector::store();
    let stream = watcher(Api::<Node>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .modify(|node: &mut Node| {
            node.managed_fields_mut().clear();
            if let Some(status) = &mut node.status {
                status.images = None;
            }
        })
        .reflect(writer)
        .touched_objects();
    wakes.push(wake(stream, |_: &Node| None));
    store
}

/// Turns a stream of objects into a stream of clusters to look at.
fn wake<K: 'static>(
    stream: impl Stream<Item = Result<K, watcher::Error>> + Send + 'static,
    whom: impl Fn(&K) -> Option<ObjectRef<DeserializeGuard<CacheCluster>>> + Send + Sync + 'static,
) -> futures::stream::BoxStream<'static, ObjectRef<DeserializeGuard<CacheCluster>>> {
    stream
        .filter_map(move |object| {
            let found = match object {
                Ok(object) => whom(&object),
                // The watch repeats by itself, with a growing delay.
                Err(error) => {
                    tracing::warn!("watch: {error}");
                    None
                }
            };
            async move { found }
        })
        .boxed()
}

impl Stores {
    /// Waits until every store has been filled once.
    async fn filled(&self) -> Result<(), Error> {
        let failed = |e: reflector::store::WriterDropped| Error::world("fill the stores", e);
        self.clusters.wait_until_ready().await.map_err(failed)?;
        self.pods.wait_until_ready().await.map_err(failed)?;
        self.claims.wait_until_ready().await.map_err(failed)?;
        self.secrets.wait_until_ready().await.map_err(failed)?;
        self.services.wait_until_ready().await.map_err(failed)?;
        self.config_maps.wait_until_ready().await.map_err(failed)?;
        self.budgets.wait_until_ready().await.map_err(failed)?;
        self.policies.wait_until_ready().await.map_err(failed)?;
        if let Some(nodes) = &self.nodes {
            nodes.wait_until_ready().await.map_err(failed)?;
        }
        Ok(())
    }
}
