//! Builds the images that the tests load: the operator's, the engine's, and the harness's own small ones.

use crate::archive::{self, Entry, Image, USER};
use crate::failure::{Context, Result};
use crate::{sh, tools};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Names under `.local`: no registry is ever asked for them.
pub const OPERATOR: &str = concat!("larder.local/operator:", env!("CARGO_PKG_VERSION"));
pub const ENGINE: &str = concat!("larder.local/engine:", env!("CARGO_PKG_VERSION"));
pub const PROBE: &str = "larder.local/probe:1";
pub const PAUSE: &str = "larder.local/pause:1";
pub const COREDNS: &str = concat!("larder.local/coredns:", "1.13.1");

#[cfg(target_arch = "aarch64")]
const TARGET: &str = "aarch64-unknown-linux-gnu";
#[cfg(not(target_arch = "aarch64"))]
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds both programs statically; gives the folder that holds them.
///
/// `LARDER_IMAGE_PROFILE=dev` builds faster and runs slower: for work on the tests themselves.
pub fn programs() -> Result<PathBuf> {
    let profile = std::env::var("LARDER_IMAGE_PROFILE").unwrap_or_else(|_| "release".to_owned());
    let target = tools::project().join("target/image");
    sh::show(
        tools::nice("cargo")
            .args(["build", "--quiet", "--locked", "--target", TARGET, "--profile", &profile])
            .args(["-p", "operator", "--bin", "larder", "-p", "engine", "--bin", "larder-server"])
            .current_dir(tools::project())
            // Its own folder: other flags in the common one would rebuild everything each time.
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTFLAGS", "-C target-feature=+crt-static"),
    )?;
    let folder = if profile == "dev" { "debug" } else { &profile };
    Ok(target.join(TARGET).join(folder))
}

/// Writes the archive with both images.
pub fn product(file: &Path) -> Result {
    let built = programs()?;
    let images = [
        image(
            OPERATOR,
            vec![program(&built, "larder")?, program(&built, "larder-server")?],
            "/usr/local/bin/larder",
        )?,
        image(ENGINE, vec![program(&built, "larder-server")?], "/usr/local/bin/larder-server")?,
    ];
    archive::write(file, &images)
}

/// The images that the nodes need before any pod runs: pause, the probe, CoreDNS.
pub fn base(folder: &Path) -> Result<PathBuf> {
    let probe = folder.join("probe");
    sh::run(
        std::process::Command::new("rustc")
            .args([
                "--edition",
                "2024",
                "-O",
                "-C",
                "target-feature=+crt-static",
                "--target",
                TARGET,
                "-o",
            ])
            .arg(&probe)
            .arg(tools::project().join("e2e/tools/probe.rs")),
    )?;
    let probe = || Ok::<_, crate::failure::Failure>(Entry::file("probe", fs::read(&probe)?, 0o755));
    let coredns = Entry::file("coredns", fs::read(tools::COREDNS.program("coredns")?)?, 0o755);
    let mut pause = image(PAUSE, vec![probe()?], "/probe")?;
    pause.entrypoint.push("pause".to_owned());
    let images = [
        pause,
        image(PROBE, vec![probe()?], "/probe")?,
        image(COREDNS, vec![coredns], "/coredns")?,
    ];
    let file = folder.join("base.tar");
    archive::write(&file, &images)?;
    Ok(file)
}

fn program(built: &Path, name: &str) -> Result<Entry> {
    let content = fs::read(built.join(name)).context(name)?;
    Ok(Entry::file(&format!("usr/local/bin/{name}"), content, 0o755))
}

fn image(name: &str, programs: Vec<Entry>, entrypoint: &str) -> Result<Image> {
    let mut entries = vec![
        Entry::folder("data", 0o755, USER),
        Entry::folder("etc", 0o755, 0),
        Entry::file("etc/group", format!("root:x:0:\nlarder:x:{USER}:\n").into_bytes(), 0o644),
        Entry::file(
            "etc/passwd",
            format!("root:x:0:0:root:/:/sbin/nologin\nlarder:x:{USER}:{USER}:larder:/data:/sbin/nologin\n").into_bytes(),
            0o644,
        ),
        Entry::folder("tmp", 0o1777, 0),
    ];
    // What is talked to outside (an object store, say) is verified against the distribution's authorities.
    if let Ok(bundle) = fs::read("/etc/ssl/certs/ca-certificates.crt") {
        entries.push(Entry::file("etc/ssl/certs/ca-certificates.crt", bundle, 0o644));
    }
    entries.extend(programs);
    Ok(Image {
        name: name.to_owned(),
        entries,
        entrypoint: vec![entrypoint.to_owned()],
        user: USER,
        labels: BTreeMap::from([(
            "org.opencontainers.image.licenses".to_owned(),
            "Apache-2.0".to_owned(),
        )]),
    })
}
