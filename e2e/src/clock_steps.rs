//! The wall clock steps, as a machine's does that was suspended or set by hand: nobody loses a lease by it, and no write.
//!
//! The members get their wall clock from libfaketime, which reads a file at each look at it; the monotonic clock stays the
//! machine's own. All members step at once.

use crate::failure::{Context, Failure, Result};
use crate::local::{Local, Scene, goes_on, whole};
use crate::probes::Probes;
use crate::tools;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Seconds beside the machine's clock, one after the other: on, back, further back, far on.
const STEPS: &[i64] = &[3_600, -3_600, -7_200, 400 * 86_400, 0];
/// Operations on each shard after a step.
const OPERATIONS: usize = 300;

pub(crate) async fn local_clock_steps_are_not_felt(scene: Scene) -> Result {
    tools::install_missing(&[("faketime", "faketime")])?;
    let file = scene.folder().join("clock");
    step(&file, 0)?;
    let spec =
        json!({"shards": 2, "replicasPerShard": 2, "memory": "64Mi", "durability": "Quorum"});
    let environment = [
        ("LD_PRELOAD", library()?.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let local = Local::start_in(&scene.wish(&spec)?, &scene.state(), &environment).await?;
    let probes = Probes::start(&local.book, local.password.as_deref()).await?;
    whole(&local).await?;
    let before = local.primaries().await?;
    let mut client = local.client();
    for seconds in STEPS {
        // By an absolute time, as in Redis: past it the key is gone, however the clock came there.
        client.call("short", &["SET", "short", "v", "EX", "600"]).await?.ok()?;
        let now = wall_clock(&mut client).await?;
        step(&file, *seconds)?;
        let later = wall_clock(&mut client).await?;
        let left = client.call("short", &["EXISTS", "short"]).await?.ok()?.number();
        crate::ensure!(
            left == Some(i64::from(later < now + 600)),
            "from {now} to {later}: a key of 600 seconds EXISTS {left:?}"
        );
        for tag in probes.tags() {
            goes_on(&probes, tag, OPERATIONS).await.context(format!("{seconds} s off"))?;
        }
    }
    let after = local.primaries().await?;
    crate::ensure!(before == after, "primaries were {before:?}, and are {after:?}");
    probes.check(Vec::new()).await?;
    local.stop().await
}

/// Written beside it and renamed: nobody reads half of it.
fn step(file: &Path, seconds: i64) -> Result {
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}\n"))?;
    std::fs::rename(&new, file)?;
    Ok(())
}

/// Where Debian keeps it, by architecture.
fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.flatten();
    let mut found = folders.map(|f| f.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|p| p.is_file()).ok_or_else(|| Failure::new("no libfaketimeMT.so.1 in /usr/lib"))
}

/// Unix seconds, by the owner of a key.
async fn wall_clock(client: &mut crate::client::Client) -> Result<i64> {
    let primary = client.primary_of(crate::slot::slot_of(b"short")).context("an owner")?;
    let time = client.call_at(primary, &["TIME"]).await?.ok()?;
    let seconds = time.list().first().and_then(|part| part.text()).context("TIME")?;
    seconds.parse().context("seconds of TIME")
}
