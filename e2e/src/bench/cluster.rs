//! A cluster of local processes with a spec of our own, which can be changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use operator::bench::{self, Interrupt};

use super::{Error, Options};
use crate::slot::held_ms;

pub(super) fn refused(why: &str) -> Error {
    Error::Refused(why.to_owned())
}

/// The directory that holds both programs, built if no engine binary was named.
pub(super) fn programs(options: &Options) -> Result<PathBuf, Error> {
    if let Some(server) = &options.server {
        return Ok(server.parent().map_or_else(PathBuf::new, Path::to_path_buf));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--bin", "larder-server", "--bin", "larder"])
        .status()
        .map_err(Error::io("cargo build"))?;
    if !built.success() {
        return Err(Error::Refused("the programs do not build".into()));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    Ok(target.join("release"))
}

pub(super) struct Cluster {
    pub(super) running: bench::cluster::Cluster,
    manifest: tempfile::TempDir,
}

impl Cluster {
    pub(super) fn of_spec(programs: &Path, spec: &serde_json::Value) -> Result<Self, Error> {
        let manifest = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
        let file = write_manifest(manifest.path(), spec)?;
        let mut run = Command::new(programs.join("larder"));
        run.arg("run");
        let running = bench::cluster::Cluster::start(run, &file, Interrupt::default())?;
        Ok(Self { running, manifest })
    }

    pub(super) fn change(&self, spec: &serde_json::Value) -> Result<(), Error> {
        write_manifest(self.manifest.path(), spec).map(|_| ())
    }

    /// For how long moves of slots held their clients, milliseconds, as the members' logs say; each is told once. `read` is how
    /// far each log was read.
    pub(super) fn held_ms(&self, read: &mut BTreeMap<PathBuf, usize>) -> Result<Vec<f64>, Error> {
        let mut all = Vec::new();
        let members = self.running.members();
        for member in std::fs::read_dir(&members).map_err(Error::io("list the members"))? {
            let file = member.map_err(Error::io("list the members"))?.path().join("log");
            let log = std::fs::read_to_string(&file).unwrap_or_default();
            let whole = log.rfind('\n').map_or(0, |end| end + 1);
            let from = read.insert(file, whole).unwrap_or(0);
            all.extend(held_ms(log.get(from..whole).unwrap_or_default()));
        }
        Ok(all)
    }
}

fn write_manifest(dir: &Path, spec: &serde_json::Value) -> Result<PathBuf, Error> {
    crate::local::manifest(dir, spec).map_err(|why| refused(&why.to_string()))
}
