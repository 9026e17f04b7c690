//! An API server in this process, as small as these tests need it: objects by path, and a limit of writes.
//!
//! It knows no watch, no admission and no real apply (a patch is merged as JSON): the end-to-end tests
//! have those. What it can do is end the operator's life after any one write.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use kube::core::DeserializeGuard;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex as AsyncMutex;

use crate::driver::kubernetes::Settings;
use crate::driver::kubernetes::reconcile::{Context, Memory, reconcile};
use crate::driver::kubernetes::stores::Stores;
use crate::health::Health;

/// What is remembered from round to round by one life of the operator.
pub(super) type Memories = BTreeMap<(String, String), Arc<AsyncMutex<Memory>>>;

/// The server.
#[derive(Clone, Default)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By path, for example `/api/v1/namespaces/shop/pods/demo-0-0`.
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: u64,
    /// After so many writes every request fails: the process is dead.
    writes_max: Option<u64>,
}

impl Fake {
    pub(super) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.objects.insert(path.to_owned(), object);
    }

    pub(super) fn remove(&self, path: &str) {
        assert!(self.state.lock().unwrap().objects.remove(path).is_some(), "{path}");
    }

    pub(super) fn writes(&self) -> u64 {
        self.state.lock().unwrap().writes
    }

    /// The next life of the operator ends after so many writes.
    pub(super) fn limit(&self, writes: Option<u64>) {
        let mut state = self.state.lock().unwrap();
        state.writes = 0;
        state.writes_max = writes;
    }

    pub(super) fn objects(&self) -> BTreeMap<String, Value> {
        self.state.lock().unwrap().objects.clone()
    }

    fn client(&self) -> Client {
        let state = self.state.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let state = state.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let (status, answer) =
                    state.lock().unwrap().answer(&head.method, head.uri.path(), body);
                let bytes = serde_json::to_vec(&answer).unwrap();
                let response = Response::builder()
                    .status(status)
                    .header("content-type", "application/json")
                    .body(Body::from(bytes))
                    .unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    /// One round of the cluster `demo` by an operator that remembers this. `false`: it failed.
    pub(super) async fn round(&self, memories: &mut Memories) -> bool {
        let context = Arc::new(Context {
            client: self.client(),
            settings: Arc::new(Settings::default()),
            stores: self.stores(),
            recorder: Recorder::new(self.client(), Reporter::from("larder")),
            health: Arc::new(Health::default()),
            memories: AsyncMutex::new(std::mem::take(memories)),
        });
        let clusters = context.stores.clusters.state();
        let done = match clusters.first() {
            Some(cluster) => reconcile(cluster.clone(), context.clone()).await.is_ok(),
            None => true,
        };
        *memories = std::mem::take(&mut *context.memories.lock().await);
        done
    }

    fn stores(&self) -> Stores {
        Stores {
            clusters: self.store::<DeserializeGuard<crds::CacheCluster>>("cacheclusters"),
            pods: self.store("pods"),
            claims: self.store("persistentvolumeclaims"),
            secrets: self.store("secrets"),
            services: self.store("services"),
            config_maps: self.store("configmaps"),
            budgets: self.store("poddisruptionbudgets"),
            policies: self.store("networkpolicies"),
            nodes: None,
        }
    }

    fn store<K>(&self, plural: &str) -> Store<K>
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
    {
        let (store, mut writer) = reflector::store();
        writer.apply_watcher_event(&watcher::Event::Init);
        for (path, object) in self.objects() {
            if path.contains(&format!("/{plural}/")) {
                let object = serde_json::from_value(object).unwrap();
                writer.apply_watcher_event(&watcher::Event::InitApply(object));
            }
        }
        writer.apply_watcher_event(&watcher::Event::InitDone);
        store
    }
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        if path.contains("/events") {
            return (StatusCode::CREATED, body);
        }
        if method == Method::GET {
            return match self.objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            };
        }
        if self.writes_max.is_some_and(|max| self.writes >= max) {
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        self.writes += 1;
        self.version += 1;
        if method == Method::POST {
            let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
            if self.objects.contains_key(&path) {
                return failure(StatusCode::CONFLICT, "AlreadyExists");
            }
            (StatusCode::CREATED, self.store(path, body))
        } else if method == Method::PATCH {
            let path = path.trim_end_matches("/status").to_owned();
            let mut object = self.objects.get(&path).cloned().unwrap_or(json!({}));
            merge(&mut object, body);
            (StatusCode::OK, self.store(path, object))
        } else {
            match self.objects.remove(path) {
                Some(object) => (StatusCode::OK, object),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            }
        }
    }
}

impl State {
    fn store(&mut self, path: String, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path, object.clone());
        object
    }
}

fn failure(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": reason, "code": code.as_u16(),
    });
    (code, status)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
