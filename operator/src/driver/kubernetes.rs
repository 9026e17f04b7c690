//! The driver for Kubernetes: pods, volumes, Services, and the members' own word over the bus.
//!
//! ```text
//! controller  watches, and calls reconcile for a cluster that changed or whose time has come
//! reconcile   round(), then what users see of it: role labels, events, metrics
//! check       whether Kubernetes takes what the manifest says, before anything that runs is touched
//! observe     stores (no list per round), and one report of every member, all at the same time
//! apply       one step: create, delete with the uid as precondition, or ask a member
//! secrets     password and certificates: made once, repaired when one of them is lost
//! build       every object as a pure function
//! account     events, and the status of a manifest that cannot be acted on
//! lease       one operator leads; one that lost its lease exits
//! ```
//!
//! What it does not promise: a member that runs on a node which is cut off lives on, unseen. Its pod is
//! given up when Kubernetes gives it up, and what keeps it from harm is the council, not the operator.

pub mod build;

mod account;
mod apply;
mod check;
mod controller;
mod lease;
mod observe;
mod reconcile;
mod secrets;
mod stores;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

pub use controller::run;

/// How long a member may take to answer; many are asked at the same time.
const ASK_LIMIT: Duration = Duration::from_millis(900);
/// The field manager of everything that is applied.
const MANAGER: &str = "larder";

/// How the operator runs, as its command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Image of the engine for clusters whose manifest names none.
    #[arg(long, default_value = concat!("larder.local/engine:", env!("CARGO_PKG_VERSION")))]
    pub engine_image: String,
    /// DNS domain of the Kubernetes cluster.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Namespaces to watch, separated by commas; none: all of them.
    #[arg(long, value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Read nodes, to know zones and nodes that are gone. Takes a cluster-wide grant.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub watch_nodes: bool,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub health_address: SocketAddr,
    /// Stand by until this process holds the lease.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_election: bool,
    /// Namespace of the lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,
    /// Who this process is in the lease.
    #[arg(long, env = "POD_NAME", default_value = "larder")]
    pub identity: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            engine_image: concat!("larder.local/engine:", env!("CARGO_PKG_VERSION")).into(),
            cluster_domain: "cluster.local".into(),
            watch_namespaces: Vec::new(),
            watch_nodes: true,
            health_address: ([0, 0, 0, 0], 8080).into(),
            leader_election: true,
            lease_namespace: "default".into(),
            identity: "larder".into(),
        }
    }
}
