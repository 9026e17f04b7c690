//! The admin lane: a thread beside the event loops for the council, health checks and metrics.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::bus::transport::Certificates;
use crate::clock;
use crate::managed::{Engine, hold_back};
use crate::member::{Address, Local, Managed, Options, Transport};
use crate::quorum::keeper;
use crate::server::Shared;
use crate::topology::Role;

/// Longest time for a request's head, seconds; a client that sends none is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections to the metrics port at a time; more wait.
const CONNECTIONS_MAX: usize = 32;

/// Starts the lane where the settings ask for it. A managed member has no role until its council speaks.
///
/// # Errors
/// When a port is taken, or the member's directory cannot be used.
pub fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let metrics_port = shared.config.int("larder-metrics-port", 0) as u16;
    let is_managed = shared.has_council();
    if metrics_port == 0 && !is_managed {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let managed = if is_managed {
        hold_back(shared);
        Some(runtime.block_on(Managed::open(options(shared)))?)
    } else {
        None
    };
    let engine = match &managed {
        Some(managed) => {
            shared.cluster.name(managed.id(), managed.boot());
            let engine = Engine::start(shared.clone(), managed.id().clone())?;
            if shared.quorum.is_configured() {
                keeper::start(shared.clone(), engine.clone())?;
            }
            Some(engine)
        }
        None => None,
    };
    let listener = match metrics_port {
        0 => None,
        port => {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
            Some(runtime.block_on(TcpListener::bind(address))?)
        }
    };
    let shared = shared.clone();
    std::thread::Builder::new().name("admin".into()).spawn(move || {
        runtime.block_on(async move {
            if let Some(listener) = listener {
                tokio::spawn(serve(listener, shared.clone(), engine.clone()));
            }
            if let (Some(managed), Some(engine)) = (managed, engine)
                && let Err(error) = managed.run(engine).await
            {
                tracing::error!(%error, "the council's driver ended");
                shared.state.shutdown.store(true, Ordering::Release);
                shared.wake_loops();
            }
            std::future::pending::<()>().await;
        });
    })?;
    Ok(())
}

fn options(shared: &Arc<Shared>) -> Options {
    let config = &shared.config;
    let dir = PathBuf::from(config.get("dir").unwrap_or_else(|| ".".into()));
    let port = config.own_port(config.is_yes("tls-cluster"));
    let is_unmanaged = shared.is_unmanaged();
    let given = ["larder-bus-port", "cluster-port"].map(|name| config.int(name, 0) as u16);
    let bus_port = match given.into_iter().find(|p| *p != 0) {
        None => port.saturating_add(10_000),
        Some(port) => port,
    };
    let mut timeout = config.int("larder-failure-timeout-ms", 1000).max(100);
    if is_unmanaged && config.is_given("cluster-node-timeout") {
        timeout = config.int("cluster-node-timeout", timeout).max(100);
    }
    let tls_dir = config.get("larder-tls-dir").filter(|d| !d.is_empty());
    let over = match tls_dir {
        Some(folder) => Transport::Tls(PathBuf::from(folder)),
        None if is_unmanaged && config.is_yes("tls-cluster") => {
            let with = shared.clone();
            Transport::AsClients(Certificates::new(move || with.tls.mutual(&with.config)))
        }
        None if is_unmanaged => Transport::Plain,
        None => Transport::Tls(dir.join("tls")),
    };
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let host = if is_unmanaged { bound_to(shared).unwrap_or(everywhere) } else { everywhere };
    Options {
        over,
        dir,
        bus_addr: SocketAddr::new(host, bus_port),
        failure_timeout_ms: timeout as u64,
        unmanaged: is_unmanaged.then(|| address(shared, bus_port)),
    }
}

/// The one address that clients are served at, if it is only one: the bus listens there, too.
fn bound_to(shared: &Shared) -> Option<IpAddr> {
    let bind = shared.config.get("bind")?;
    let mut words = bind.split_ascii_whitespace();
    let only = words.next()?.parse().ok()?;
    words.next().is_none().then_some(only)
}

/// What an unmanaged member says of where it is. Its host is the one at which others reach it, unless one is given.
fn address(shared: &Shared, bus_port: u16) -> Address {
    let config = &shared.config;
    let given = |name: &str| config.get(name).filter(|text| !text.is_empty());
    let announced = |name: &str, port: u16| match config.int(name, 0) as u16 {
        0 => port,
        port => port,
    };
    let by_name = config.get("cluster-preferred-endpoint-type").is_some_and(|t| t == "hostname");
    let name = given("cluster-announce-hostname").filter(|_| by_name);
    Address {
        host: name.or_else(|| given("cluster-announce-ip")).unwrap_or_default(),
        port: announced("cluster-announce-port", config.int("port", 6379) as u16),
        tls_port: announced("cluster-announce-tls-port", config.int("tls-port", 0) as u16),
        bus_port: announced("cluster-announce-bus-port", bus_port),
        node: given("larder-node"),
        zone: given("larder-zone"),
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, engine: Option<Arc<Engine>>) {
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the metrics port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (shared, engine) = (shared.clone(), engine.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let reply = respond(request.uri().path(), &shared, engine.as_deref());
                async move { Ok::<_, Infallible>(reply) }
            });
            // A scraper that hangs up early is no concern of ours.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            drop(place);
        });
    }
}

fn respond(path: &str, shared: &Shared, engine: Option<&Engine>) -> Response<Full<Bytes>> {
    let (status, text) = match path {
        // The lane answers: the process lives, whatever its data lanes are busy with.
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match unready(shared, engine) {
            None => (StatusCode::OK, "ready\n".to_owned()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        "/metrics" => (StatusCode::OK, crate::metrics::text(shared)),
        _ => (StatusCode::NOT_FOUND, "not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

/// Why the member is not ready, if it is not.
fn unready(shared: &Shared, engine: Option<&Engine>) -> Option<&'static str> {
    if shared.state.loading.load(Ordering::Acquire) {
        return Some("loading the data set");
    }
    let report = engine?.report();
    match report.role {
        Role::Primary => {
            let lease = shared.state.lease_until_ms.load(Ordering::Acquire);
            (clock::monotonic_ms() >= lease).then_some("the lease has ended")
        }
        Role::Replica => (!report.in_sync).then_some("not in sync with the primary"),
        Role::Witness => None,
        Role::None => Some("the council has given no role yet"),
    }
}
