//! Disks that are full: each member has a small one of its own, a file system in memory, and a file of ballast takes what is left of it.
//!
//! A primary that cannot write its disk is replaced by a replica that can. When none can, writes are refused and reads go on.
//! Once there is room again, all is as before without anybody's help, and what clients saw is a history of one register for
//! each key.

use crate::clock::eventually;
use crate::failure::{Context, Result};
use crate::local::{Local, Scene, goes_on, whole};
use crate::probes::Probes;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MEMBERS: [&str; 3] = ["demo-0-0", "demo-0-1", "demo-0-2"];
const SIZE: &str = "size=24m,mode=0700";
/// A key that nobody writes while disks are full.
const UNTOUCHED: &str = "untouched";
/// Operations while one disk is full, and afterwards.
const OPERATIONS: usize = 300;
const PATIENCE: Duration = Duration::from_secs(60);

/// A small disk at a folder; gone with this.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        crate::sh!("mount", "-t", "tmpfs", "-o", SIZE, "larder-e2e", &folder)?;
        Ok(Self(folder))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all that is left.
    fn fill(&self) -> Result {
        let mut file = File::create(self.ballast())?;
        for piece in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1; piece]).is_ok() {}
        }
        Ok(())
    }

    fn empty(&self) -> Result {
        Ok(std::fs::remove_file(self.ballast())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that still ends may have files open there.
        crate::sh!("umount", "-l", &self.0).ok();
    }
}

pub(crate) async fn local_full_disks_lose_nothing(scene: Scene) -> Result {
    let members = scene.state().join("members");
    let mut disks = Vec::new();
    for name in MEMBERS {
        disks.push(Disk::mount(members.join(name).join("data"))?);
    }
    let spec = json!({
        "shards": 1, "replicasPerShard": 2, "memory": "16Mi", "durability": "Quorum",
        "persistence": {"aof": {"fsync": "always"}, "volume": {"size": "1Gi"}},
    });
    let local = scene.run(&spec).await?;
    let probes = Probes::start(&local.book, local.password.as_deref()).await?;
    let tag = probes.tags()[0].clone();
    whole(&local).await?;
    goes_on(&probes, &tag, OPERATIONS).await?;
    let mut client = local.client();
    client.call(UNTOUCHED, &["SET", UNTOUCHED, "v"]).await?.ok()?;

    let full = primary(&local).await?;
    let disk = disk_of(&disks, &local, full).await?;
    disk.fill()?;
    eventually("another primary", PATIENCE, || async {
        crate::ensure!(primary(&local).await? != full, "{full} is primary still");
        Ok(())
    })
    .await?;
    goes_on(&probes, &tag, OPERATIONS).await.context("one disk is full")?;
    disk.empty()?;
    whole(&local).await.context("the disk has room again")?;

    for disk in &disks {
        disk.fill()?;
    }
    eventually("writes are refused", PATIENCE, || async {
        let refused = local.client().call(&tag, &["SET", &tag, "v"]).await?;
        let text = format!("{refused:?}");
        crate::ensure!(text.contains("MISCONF"), "{text}");
        Ok(())
    })
    .await?;
    // A read waits where the last write of its slot is not acknowledged: somebody else's key tells.
    eventually("reads go on", PATIENCE, || async {
        let value = local.client().call(UNTOUCHED, &["GET", UNTOUCHED]).await?.ok()?.text();
        crate::ensure!(value.as_deref() == Some("v"), "{value:?}");
        Ok(())
    })
    .await
    .context("all disks are full")?;
    for disk in &disks {
        disk.empty()?;
    }
    goes_on(&probes, &tag, OPERATIONS).await.context("all disks have room again")?;
    whole(&local).await?;

    // Killed with full disks, they come back, and go on once there is room.
    for disk in &disks {
        disk.fill()?;
    }
    let said = MEMBERS.iter().map(|name| log_bytes(&members, name)).collect::<Result<Vec<_>>>()?;
    for address in local.book.all() {
        crate::sh!("kill", "-KILL", local.pid_of(address).await?)?;
    }
    eventually("all have been started again", PATIENCE, || async {
        for (name, before) in MEMBERS.iter().zip(&said) {
            crate::ensure!(log_bytes(&members, name)? > *before, "{name} has said nothing");
        }
        Ok(())
    })
    .await?;
    for disk in &disks {
        disk.empty()?;
    }
    goes_on(&probes, &tag, OPERATIONS).await.context("started with full disks")?;
    whole(&local).await?;
    probes.check(Vec::new()).await?;
    local.stop().await
}

fn log_bytes(members: &Path, name: &str) -> Result<u64> {
    Ok(std::fs::metadata(members.join(name).join("log"))?.len())
}

async fn primary(local: &Local) -> Result<SocketAddr> {
    local.primaries().await?.first().copied().flatten().context("a primary")
}

/// The disk of whoever serves this address, by the folder that its process was started with.
async fn disk_of<'d>(disks: &'d [Disk], local: &Local, address: SocketAddr) -> Result<&'d Disk> {
    let pid = local.pid_of(address).await?;
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    let is_its = |disk: &&Disk| {
        disk.0.parent().is_some_and(|member| line.contains(&*member.to_string_lossy()))
    };
    disks.iter().find(is_its).context(line.clone())
}
