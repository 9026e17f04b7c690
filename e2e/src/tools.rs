//! The programs that the harness needs and does not write itself: Debian packages, Go modules, cargo-deny.
//!
//! Go programs are built from the pinned modules in `e2e/tools/` into a cache folder keyed by version, once. Only the
//! binaries are kept there; Go's own caches stay where the user has them.

use crate::failure::{Context, Result};
use crate::{clock, sh};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Go module of the project and the release that it pins.
pub struct GoTool {
    pub name: &'static str,
    pub version: &'static str,
    linker_flags: &'static str,
    package: &'static str,
    /// What `go build` names the file, and what we call it.
    rename: Option<(&'static str, &'static str)>,
}

pub const KUBERNETES: GoTool = GoTool {
    name: "kubernetes",
    version: "1.35.4",
    linker_flags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.35.4 \
                   -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35",
    package: "tool",
    rename: None,
};
pub const ETCD: GoTool = GoTool {
    name: "etcd",
    version: "3.6.5",
    linker_flags: "-s -w",
    package: "tool",
    rename: Some(("server", "etcd")),
};
pub const COREDNS: GoTool = GoTool {
    name: "coredns",
    version: "1.13.1",
    linker_flags: "-s -w",
    package: ".",
    rename: None,
};
pub const HELM: GoTool = GoTool {
    name: "helm",
    version: "4.3.1",
    linker_flags: "-s -w -X helm.sh/helm/v4/internal/version.version=v4.3.1",
    package: "tool",
    rename: None,
};

/// Debian package, and a program whose presence shows that it is installed.
const PACKAGES: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iproute2", "ip"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ipset", "ipset"),
    ("socat", "socat"),
    ("openssl", "openssl"),
    ("procps", "kill"),
    ("redis-tools", "redis-cli"),
    ("redis-server", "redis-server"),
    ("memcached", "memcached"),
];

const CARGO_DENY: &str = "0.20.2";

/// The cache folder: `$LARDER_CACHE`, or `larder` in the user's cache folder.
pub fn cache() -> Result<PathBuf> {
    let folder = match (std::env::var_os("LARDER_CACHE"), std::env::var_os("XDG_CACHE_HOME")) {
        (Some(own), _) => PathBuf::from(own),
        (None, Some(cache)) => PathBuf::from(cache).join("larder"),
        (None, None) => {
            PathBuf::from(std::env::var_os("HOME").context("HOME")?).join(".cache/larder")
        }
    };
    fs::create_dir_all(&folder).context(format!("cache folder {}", folder.display()))?;
    Ok(folder)
}

/// The project's own folder: where the workspace was built from.
pub fn project() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder).to_owned()
}

/// A port of loopback that nobody uses now.
pub fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// This very program, for another process of it. Not by the name of its file: a part of the tests
/// that builds the workspace may have put another one there.
pub fn this_program() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}

/// A command with low priority, for long builds.
pub fn nice(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "5"]).arg(program);
    command
}

impl GoTool {
    /// The folder with this tool's binaries, built now if they are not there yet.
    pub fn folder(&self) -> Result<PathBuf> {
        let folder = cache()?.join(format!("{}-{}", self.name, self.version));
        if folder.is_dir() {
            return Ok(folder);
        }
        let start = clock::now();
        println!("building {} {} from its Go module (once)", self.name, self.version);
        let part = folder.with_extension("part");
        fs::remove_dir_all(&part).ok();
        fs::create_dir_all(&part)?;
        // Whatever the user set for Go elsewhere must not change what is built here.
        sh::show(
            nice("go")
                .args([
                    "build",
                    "-buildvcs=false",
                    "-trimpath",
                    "-ldflags",
                    self.linker_flags,
                    "-o",
                ])
                .arg(format!("{}/", part.display()))
                .arg(self.package)
                .current_dir(project().join("e2e/tools").join(self.name))
                .env("CGO_ENABLED", "0")
                .env("GOFLAGS", "")
                .env("GOWORK", "off"),
        )?;
        if let Some((from, to)) = self.rename {
            fs::rename(part.join(from), part.join(to))
                .context(format!("binary of {}", self.name))?;
        }
        fs::rename(&part, &folder)?;
        println!("built {} in {}", self.name, clock::seconds(start.elapsed()));
        Ok(folder)
    }

    pub fn program(&self, name: &str) -> Result<PathBuf> {
        Ok(self.folder()?.join(name))
    }
}

/// Installs the Debian packages that are missing.
pub fn packages() -> Result {
    let cni = (cni_plugins().is_none()).then_some(("containernetworking-plugins", ""));
    install_missing(&PACKAGES.iter().copied().chain(cni).collect::<Vec<_>>())
}

/// Installs those of these packages whose program is not there.
pub fn install_missing(packages: &[(&str, &str)]) -> Result {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, program)| program.is_empty() || sh::find_program(program).is_none())
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    sh::run(Command::new("apt-get").arg("update").env("DEBIAN_FRONTEND", "noninteractive"))?;
    // The services of these packages are not wanted: only their programs are.
    sh::run(
        Command::new("apt-get")
            .args(["install", "-y", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("RUNLEVEL", "1"),
    )?;
    Ok(())
}

/// Where the CNI plugins are.
pub fn cni_plugins() -> Option<PathBuf> {
    ["/usr/lib/cni", "/opt/cni/bin"]
        .iter()
        .map(PathBuf::from)
        .find(|folder| folder.join("ptp").is_file())
}

/// cargo-deny, installed into the cache folder once.
pub fn cargo_deny() -> Result<PathBuf> {
    let folder = cache()?.join(format!("cargo-deny-{CARGO_DENY}"));
    let program = folder.join("bin/cargo-deny");
    if !program.is_file() {
        println!("building cargo-deny {CARGO_DENY} (once)");
        sh::show(
            nice("cargo")
                .args(["install", "--quiet", "--locked", "--version", CARGO_DENY, "--root"])
                .arg(&folder)
                .arg("cargo-deny")
                .current_dir("/"),
        )?;
    }
    Ok(program)
}
