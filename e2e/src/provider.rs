//! One interface over three kinds of Kubernetes: nodes of our own, kind, and whatever `KUBECONFIG` names.
//!
//! What a provider cannot do it says by returning the reason; the test that needs it is then skipped by name.

mod existing;
mod kind;
mod own;

use crate::failure::Result;
use crate::sh;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A fault that a test can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node's wire is cut; its pods live on.
    NodeCut,
    /// A node's wire is bad while its link is up: see `Wire`.
    NodeWire,
    /// A node loses power, and gets it back.
    NodePower,
    /// A node's kubelet stops; its pods live on.
    KubeletStop,
    /// The API server stops, and starts again.
    ApiStop,
    /// A container's process is killed, and Kubernetes restarts it.
    ContainerKill,
}

/// How a node's wire is bad; the link stays up, and nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// What comes in is lost.
    Deaf,
    /// What goes out is lost.
    Mute,
    /// Of so many packets in a hundred, either way, each is lost by chance.
    Lossy(u8),
    /// What goes out waits in line for a wire of so many kilobits a second, up to `SLOW_MS`; what had to wait longer is lost.
    Slow(u16),
}

/// Longest wait of a packet in a slow wire, milliseconds.
const SLOW_MS: u16 = 400;

/// The chain with the rules of a bad wire, in the table mangle.
const CHAIN: &str = "LARDER-E2E";

impl Wire {
    /// Commands for a shell in the node's network, whose wire is `eth0`.
    fn script(self) -> String {
        let (deaf, mute) = ("PREROUTING -i eth0", "POSTROUTING -o eth0");
        let (ways, chance) = match self {
            Wire::Slow(rate) => {
                return format!(
                    "tc qdisc add dev eth0 root tbf rate {rate}kbit burst 4kb latency {SLOW_MS}ms\n"
                );
            }
            Wire::Deaf => (&[deaf][..], 1.0),
            Wire::Mute => (&[mute][..], 1.0),
            Wire::Lossy(percent) => (&[deaf, mute][..], f64::from(percent) / 100.0),
        };
        let mut script = format!(
            "iptables -t mangle -N {CHAIN}\n\
             iptables -t mangle -A {CHAIN} -m statistic --mode random --probability {chance} -j DROP\n"
        );
        for way in ways {
            script += &format!("iptables -t mangle -I {way} -j {CHAIN}\n");
        }
        script
    }

    /// Undoes all of them; those that are not there are no error.
    fn mend() -> String {
        format!(
            "tc qdisc del dev eth0 root 2>/dev/null || true\n\
             iptables -t mangle -D PREROUTING -i eth0 -j {CHAIN} 2>/dev/null || true\n\
             iptables -t mangle -D POSTROUTING -o eth0 -j {CHAIN} 2>/dev/null || true\n\
             iptables -t mangle -F {CHAIN} 2>/dev/null || true\n\
             iptables -t mangle -X {CHAIN} 2>/dev/null || true\n"
        )
    }
}

/// A Kubernetes to test on.
pub trait Provider: Send + Sync {
    fn name(&self) -> &'static str;

    /// Keeps other runs away for as long as the result lives.
    fn lock(&self) -> Result<Option<File>> {
        Ok(None)
    }

    /// Makes it ready to be used; prints what takes time.
    fn up(&self) -> Result;

    /// Takes away what `up` made.
    fn down(&self) -> Result;

    fn kubeconfig(&self) -> PathBuf;

    /// Makes the images of an archive available on every node.
    fn load_image(&self, archive: &Path) -> Result;

    /// Why this provider cannot make a fault, if it cannot.
    fn cannot(&self, fault: Fault) -> Option<String>;

    /// Why pods cannot be reached from here by their addresses, if they cannot.
    fn pods_unreachable(&self) -> Option<String>;

    fn node_cut(&self, node: &str) -> Result;
    /// Makes a node's wire bad, until `node_heal`.
    fn node_impair(&self, node: &str, wire: Wire) -> Result;
    fn node_heal(&self, node: &str) -> Result;
    fn node_power_off(&self, node: &str) -> Result;
    fn node_power_on(&self, node: &str) -> Result;
    fn kubelet_stop(&self, node: &str) -> Result;
    fn kubelet_start(&self, node: &str) -> Result;
    fn api_stop(&self) -> Result;
    fn api_start(&self) -> Result;
    fn container_kill(&self, node: &str, container: &str) -> Result;

    /// A program in the node's network: a client that shares the node's fate.
    fn command_on_node(&self, node: &str, program: &OsStr) -> Result<Command>;

    /// A program on this machine that can resolve the cluster's names.
    fn client_command(&self, program: &OsStr) -> Result<Command>;

    /// Empties volumes whose claim is gone and offers them again, where nothing else does.
    fn recycle_volumes(&self) -> Result;

    /// Whether it can be used as it is.
    fn is_up(&self) -> bool {
        self.kubectl(&["get", "--raw", "/readyz"]).is_ok()
    }

    /// Undoes all faults that may still be there.
    fn repair(&self) -> Result {
        Ok(())
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        sh::run(
            Command::new(kubectl_program()?)
                .arg("--kubeconfig")
                .arg(self.kubeconfig())
                .args(arguments),
        )
    }
}

/// The kubectl that belongs to the version under test.
pub fn kubectl_program() -> Result<PathBuf> {
    crate::tools::KUBERNETES.program("kubectl")
}

/// The provider that `LARDER_E2E_PROVIDER` names (own, kind, existing), or the best that this machine allows.
pub fn choose() -> Result<Box<dyn Provider>> {
    let wanted = std::env::var("LARDER_E2E_PROVIDER").ok();
    match wanted.as_deref() {
        Some("own") => Ok(Box::new(own::Own)),
        Some("kind") => Ok(Box::new(kind::Kind)),
        Some("existing") => Ok(Box::new(existing::Existing::from_environment()?)),
        Some(other) => {
            crate::fail!("LARDER_E2E_PROVIDER={other}: there are own, kind and existing")
        }
        None => match crate::own::impossible() {
            None => Ok(Box::new(own::Own)),
            Some(why) if std::env::var_os("KUBECONFIG").is_some() => {
                println!("{why}: using the cluster of KUBECONFIG");
                Ok(Box::new(existing::Existing::from_environment()?))
            }
            Some(why) => {
                println!("{why}: using kind");
                Ok(Box::new(kind::Kind))
            }
        },
    }
}
