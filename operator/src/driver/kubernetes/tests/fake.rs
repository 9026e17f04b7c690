//! An API server in this process, as small as these tests need it: objects by path, and a limit of writes.
//!
//! It tells no news to a watch, and knows no real apply (a patch is merged as JSON): the end-to-end tests
//! have those. What it can do is end the operator's life after any one write, refuse what it is told to
//! refuse, and say afterwards what it was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use kube::core::DeserializeGuard;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, Notify};

use crate::driver::kubernetes::Settings;
use crate::driver::kubernetes::build::CLUSTER;
use crate::driver::kubernetes::reconcile::{Context, Memory, reconcile};
use crate::driver::kubernetes::stores::Stores;
use crate::health::Health;

/// What is remembered from round to round by one life of the operator.
pub(super) type Memories = BTreeMap<(String, String), Arc<AsyncMutex<Memory>>>;

/// The server.
#[derive(Clone, Default)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
    /// Told after every request.
    asked: Arc<Notify>,
}

/// A verb, an API group and a resource, as a role grants them.
pub(super) type Grant = (String, String, String);

#[derive(Default)]
struct State {
    /// By path, for example `/api/v1/namespaces/shop/pods/demo-0-0`.
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: u64,
    /// After so many writes every request fails: the process is dead.
    writes_max: Option<u64>,
    /// What was asked for so far.
    asked: BTreeSet<Grant>,
    /// Writes of this resource are forbidden.
    forbidden: Option<&'static str>,
    /// What is asked for in these namespaces is never answered, or forbidden.
    hung: Option<&'static str>,
    closed: Option<&'static str>,
    /// Requests that were not answered, or forbidden, on account of these two.
    suffered: u64,
}

/// The body of a watch in which nothing ever happens.
struct Silence;

impl hyper::body::Body for Silence {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// What a path leads to.
struct Target<'a> {
    group: &'a str,
    plural: &'a str,
    name: Option<&'a str>,
    subresource: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn of(path: &'a str) -> Self {
        let mut parts = path.split('/').skip(1).peekable();
        // `api/v1`, or `apis/GROUP/VERSION`.
        let group = if parts.next() == Some("apis") { parts.next().unwrap() } else { "" };
        parts.next();
        if parts.peek() == Some(&"namespaces") {
            parts.nth(1);
        }
        let plural = parts.next().unwrap_or_default();
        Self { group, plural, name: parts.next(), subresource: parts.next() }
    }
}

impl Fake {
    /// Writes of this resource are refused from now on.
    pub(super) fn forbid(&self, plural: &'static str) {
        self.state.lock().unwrap().forbidden = Some(plural);
    }

    /// Requests for what is in this namespace are never answered from now on.
    pub(super) fn hang(&self, namespace: &'static str) {
        self.state.lock().unwrap().hung = Some(namespace);
    }

    /// The operator may do nothing in this namespace from now on.
    pub(super) fn close(&self, namespace: &'static str) {
        self.state.lock().unwrap().closed = Some(namespace);
    }

    /// Requests that were not answered, and that were forbidden, in the namespaces of `hang` and `close`.
    pub(super) fn suffered(&self) -> u64 {
        self.state.lock().unwrap().suffered
    }

    /// Waits until it holds; it is looked at after every request.
    pub(super) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            self.asked.notified().await;
        }
    }

    pub(super) fn asked(&self) -> BTreeSet<Grant> {
        self.state.lock().unwrap().asked.clone()
    }

    /// Waits until it was asked for something.
    pub(super) async fn until_asked(&self, what: impl Fn(&BTreeSet<Grant>) -> bool) {
        self.until(|fake| what(&fake.asked())).await;
    }

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

    pub(super) fn client(&self) -> Client {
        let (state, asked) = (self.state.clone(), self.asked.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (state, asked) = (state.clone(), asked.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
                let is_hung = state.lock().unwrap().is_hung(path);
                if is_hung {
                    asked.notify_one();
                    std::future::pending::<()>().await;
                }
                let (status, answer) =
                    state.lock().unwrap().answer(&head.method, path, query, body);
                asked.notify_one();
                let body = if query.contains("watch=true") {
                    Silence.boxed()
                } else {
                    Full::new(Bytes::from(serde_json::to_vec(&answer).unwrap())).boxed()
                };
                let response = Response::builder()
                    .status(status)
                    .header("content-type", "application/json")
                    .body(body)
                    .unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    /// One round of the cluster `demo` by an operator that remembers this. `false`: it failed.
    pub(super) async fn round(&self, memories: &mut Memories) -> bool {
        let context = self.context(std::mem::take(memories));
        let clusters = context.stores.clusters.state();
        let done = match clusters.first() {
            Some(cluster) => reconcile(cluster.clone(), context.clone()).await.is_ok(),
            None => true,
        };
        *memories = std::mem::take(&mut *context.memories.lock().await);
        done
    }

    /// What an operator that remembers this has of the server now.
    pub(super) fn context(&self, memories: Memories) -> Arc<Context> {
        Arc::new(Context {
            client: self.client(),
            settings: Arc::new(Settings::default()),
            stores: self.stores(),
            recorder: Recorder::new(self.client(), Reporter::from("larder")),
            health: Arc::new(Health::default()),
            memories: AsyncMutex::new(memories),
        })
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
            nodes: Some(self.store("nodes")),
        }
    }

    fn store<K>(&self, plural: &str) -> Store<K>
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
    {
        let (store, mut writer) = reflector::store();
        writer.apply_watcher_event(&watcher::Event::Init);
        for (path, object) in self.objects() {
            // The watches of what belongs to clusters are filtered by this label.
            let all = matches!(plural, "cacheclusters" | "nodes");
            let labelled = !object["metadata"]["labels"][CLUSTER].is_null();
            if path.contains(&format!("/{plural}/")) && (all || labelled) {
                let object = serde_json::from_value(object).unwrap();
                writer.apply_watcher_event(&watcher::Event::InitApply(object));
            }
        }
        writer.apply_watcher_event(&watcher::Event::InitDone);
        store
    }
}

fn is_in(path: &str, namespace: Option<&str>) -> bool {
    namespace.is_some_and(|namespace| path.contains(&format!("/namespaces/{namespace}/")))
}

impl State {
    fn is_hung(&mut self, path: &str) -> bool {
        let is_hung = is_in(path, self.hung);
        self.suffered += u64::from(is_hung);
        is_hung
    }

    fn answer(
        &mut self,
        method: &Method,
        path: &str,
        query: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let target = Target::of(path);
        self.note(method, path, query, &target);
        if is_in(path, self.closed) {
            self.suffered += 1;
            return failure(StatusCode::FORBIDDEN, "Forbidden");
        }
        if target.name.is_none() && method == Method::GET {
            return (StatusCode::OK, self.list(path, &target));
        }
        if query.contains("dryRun=All") {
            return refused(&body).unwrap_or((StatusCode::CREATED, body));
        }
        if method != Method::GET && self.forbidden == Some(target.plural) {
            return failure(StatusCode::FORBIDDEN, "Forbidden");
        }
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
        } else if method == Method::PATCH || method == Method::PUT {
            let path = path.trim_end_matches("/status").to_owned();
            let mut object = self.objects.get(&path).cloned().unwrap_or(json!({}));
            let version = &body["metadata"]["resourceVersion"];
            if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
                return failure(StatusCode::CONFLICT, "Conflict");
            }
            if target.subresource == Some("status") {
                // One manager applies it, and the whole of it: what it leaves out is gone.
                object["status"] = Value::Null;
            }
            merge(&mut object, body);
            (StatusCode::OK, self.store(path, object))
        } else {
            let Some(object) = self.objects.get(path) else {
                return failure(StatusCode::NOT_FOUND, "NotFound");
            };
            let is_met = |field: &str| {
                let wanted = &body["preconditions"][field];
                wanted.is_null() || *wanted == object["metadata"][field]
            };
            if !is_met("uid") || !is_met("resourceVersion") {
                return failure(StatusCode::CONFLICT, "Conflict");
            }
            (StatusCode::OK, self.objects.remove(path).unwrap_or_default())
        }
    }
}

impl State {
    /// Writes down which grant a request takes.
    fn note(&mut self, method: &Method, path: &str, query: &str, target: &Target) {
        let verb = match (method.as_str(), target.name) {
            ("GET", Some(_)) => "get",
            ("GET", None) if query.contains("watch=true") => "watch",
            ("GET", None) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", _) => "delete",
            (other, _) => panic!("{other} {path}"),
        };
        let sub = target.subresource.map(|s| format!("/{s}")).unwrap_or_default();
        let resource = format!("{}{sub}", target.plural);
        let mut grant = |verb: &str| {
            self.asked.insert((verb.to_owned(), target.group.to_owned(), resource.clone()));
        };
        grant(verb);
        // An apply that makes the object takes the grant to create it, too.
        if verb == "patch" && target.subresource.is_none() && !self.objects.contains_key(path) {
            grant("create");
        }
    }

    fn list(&self, path: &str, target: &Target) -> Value {
        let infix = format!("/{}/", target.plural);
        let all = !path.contains("/namespaces/");
        let within =
            |found: &str| if all { found.contains(&infix) } else { found.starts_with(path) };
        let items: Vec<&Value> =
            self.objects.iter().filter(|(p, _)| within(p)).map(|(_, o)| o).collect();
        json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": self.version.to_string()}, "items": items,
        })
    }

    fn store(&mut self, path: String, mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path, object.clone());
        object
    }
}

/// What Kubernetes' own validation would say of a pod, as far as these tests need it.
fn refused(pod: &Value) -> Option<(StatusCode, Value)> {
    let tolerations = pod["spec"]["tolerations"].as_array()?;
    let known = [Some("NoSchedule"), Some("PreferNoSchedule"), Some("NoExecute"), None];
    let at = tolerations.iter().position(|t| !known.contains(&t["effect"].as_str()))?;
    let (code, mut status) = failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
    status["details"] = json!({"causes": [{
        "reason": "FieldValueNotSupported", "message": "Unsupported value",
        "field": format!("spec.tolerations[{at}].effect"),
    }]});
    Some((code, status))
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
                if value.is_null() {
                    into.remove(&key);
                    continue;
                }
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
