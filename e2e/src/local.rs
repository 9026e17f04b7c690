//! The same scenarios on local processes: `larder run -f FILE`, no Kubernetes anywhere.

use crate::bench_failover::local_bench_failover_tells_gaps_and_losses;
use crate::client::{AddressBook, Client};
use crate::clock::{self, eventually, seconds};
use crate::clock_steps::local_clock_steps_are_not_felt;
use crate::deb::{
    local_package_is_installed_upgraded_and_purged, local_package_starts_as_it_is_unpacked,
};
use crate::disk_full::local_full_disks_lose_nothing;
use crate::failure::{Context, Failure, Result};
use crate::figures;
use crate::ledger::{self, Writers};
use crate::probes::Probes;
use crate::storm::local_storm_is_linearizable;
use crate::tests::Tally;
use crate::tools;
use crate::uses::local_uses_run_as_they_are_written;
use crate::wire::Connection;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How much is told of each log when a test fails.
const LAST_LINES: usize = 25;

const MANIFEST: &str = "demo.yaml";

pub struct Test {
    pub name: &'static str,
    run: fn(Scene) -> BoxFuture<'static, Result>,
}

macro_rules! test {
    ($name:ident) => {
        Test { name: stringify!($name), run: |scene| Box::pin($name(scene)) }
    };
}

pub const TESTS: &[Test] = &[
    test!(local_example_forms_and_finds_its_data_again),
    test!(local_uses_run_as_they_are_written),
    test!(local_package_starts_as_it_is_unpacked),
    test!(local_package_is_installed_upgraded_and_purged),
    test!(local_primary_killed_writes_resume),
    test!(local_primary_ended_hands_over),
    test!(local_shards_added_and_taken_away),
    test!(local_all_killed_at_once_come_back),
    test!(local_quorum_is_linearizable),
    test!(local_shards_that_go_on_alone_are_linearizable),
    test!(local_storm_is_linearizable),
    test!(local_clock_steps_are_not_felt),
    test!(local_full_disks_lose_nothing),
    test!(local_bench_failover_tells_gaps_and_losses),
];

pub async fn run(tests: &[&Test]) -> Tally {
    let mut tally = Tally::default();
    for test in tests {
        let start = clock::now();
        figures::begin(test.name);
        let result = in_a_folder(test).await;
        let took = seconds(start.elapsed());
        match result {
            Ok(()) => {
                println!("pass  {} ({took})", test.name);
                tally.passed += 1;
            }
            Err(failure) => {
                println!("FAIL  {} ({took}): {failure}", test.name);
                tally.failed += 1;
            }
        }
    }
    tally
}

/// Runs a test in a folder of its own; when it fails, what its processes said last is printed.
async fn in_a_folder(test: &Test) -> Result {
    let folder = tempfile::tempdir()?;
    let scene = Scene(folder.path().into());
    let result = tokio::time::timeout(Duration::from_secs(300), (test.run)(scene.clone())).await;
    let result = result.unwrap_or_else(|_| Err(Failure::new("not done within 300 s")));
    if result.is_err() {
        scene.tell(test.name)?;
    }
    result
}

/// The folder of a test: the manifest, and all that the members keep.
#[derive(Clone)]
pub(crate) struct Scene(PathBuf);

impl Scene {
    /// Starts what a spec wishes.
    pub(crate) async fn run(&self, spec: &Value) -> Result<Local> {
        Local::start(&self.wish(spec)?, &self.state()).await
    }

    /// Writes the manifest, which is watched.
    pub(crate) fn wish(&self, spec: &Value) -> Result<PathBuf> {
        manifest(&self.0, spec)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.0.join(MANIFEST)
    }

    /// Prints the ends of all logs, and keeps the whole of them.
    fn tell(&self, test: &str) -> Result {
        let kept = tools::project().join("target/e2e").join(test);
        std::fs::remove_dir_all(&kept).ok();
        std::fs::create_dir_all(&kept)?;
        let mut logs = vec![self.state().with_extension("log")];
        for member in
            std::fs::read_dir(self.state().join("members")).into_iter().flatten().flatten()
        {
            logs.push(member.path().join("log"));
        }
        logs.sort();
        for log in logs {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let folder = log.parent().and_then(Path::file_name).unwrap_or_default();
            let name = kept.join(folder).with_extension("log");
            println!("      the last of {} lines of {}:", lines.len(), name.display());
            std::fs::write(&name, &text)?;
            for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                println!("        {line}");
            }
        }
        Ok(())
    }
}

/// A running `larder run`, and how to reach what it runs.
pub(crate) struct Local {
    child: Child,
    pub(crate) book: AddressBook,
    pub(crate) password: Option<String>,
}

impl Local {
    pub(crate) async fn start(manifest: &Path, folder: &Path) -> Result<Self> {
        Self::start_in(manifest, folder, &[]).await
    }

    /// The same in an environment, which its members have from it.
    pub(crate) async fn start_in(
        manifest: &Path,
        folder: &Path,
        environment: &[(&str, String)],
    ) -> Result<Self> {
        let program = tools::project().join("target/debug/larder");
        let log = folder.with_extension("log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = Command::new(program)
            .args(["run", "--output", "json", "-f"])
            .arg(manifest)
            .arg("--dir")
            .arg(folder)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("larder run")?;
        let mut lines =
            BufReader::new(child.stdout.take().context("output of larder run")?).lines();
        let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line())
            .await
            .map_err(|_| Failure::new("larder run was not Ready within 60 s"))??
            .context("larder run ended before it was Ready")?;
        // Keep reading: a full pipe would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let ready: Value = serde_json::from_str(&line).context(line)?;
        let endpoints = ready["endpoints"].as_array().context("endpoints")?;
        let mut members = BTreeMap::new();
        for endpoint in endpoints {
            let address: SocketAddr = endpoint.as_str().context("an endpoint")?.parse()?;
            members.insert(address.to_string(), address);
        }
        let book = AddressBook::default();
        book.set(members);
        Ok(Self { child, book, password: ready["password"].as_str().map(str::to_owned) })
    }

    /// Ctrl-C, as a user stops it.
    pub(crate) async fn stop(mut self) -> Result {
        let pid = self.child.id().context("larder run has ended")?;
        crate::sh!("kill", "-INT", pid.to_string())?;
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        ended.map_err(|_| Failure::new("larder run did not stop within 30 s of Ctrl-C"))??;
        for address in self.book.all() {
            let open = Connection::open(address, None, Duration::from_millis(300)).await.is_ok();
            crate::ensure!(!open, "{address} still answers after Ctrl-C");
        }
        Ok(())
    }

    /// kill -9, which ends its members too, and a new one in its place.
    pub(crate) async fn restart(&mut self, manifest: &Path, folder: &Path) -> Result {
        self.child.kill().await?;
        let fresh = Self::start(manifest, folder).await?;
        self.child = fresh.child;
        Ok(())
    }

    /// The process that serves an address, by INFO.
    pub(crate) async fn pid_of(&self, address: SocketAddr) -> Result<String> {
        let mut connection =
            Connection::open(address, self.password.as_deref(), Duration::from_secs(2)).await?;
        let info = connection.call(&["INFO", "server"]).await?.ok()?.text().context("INFO")?;
        let pid = info
            .lines()
            .find_map(|line| line.strip_prefix("process_id:"))
            .context("process_id in INFO")?;
        Ok(pid.trim().to_owned())
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.book, self.password.as_deref())
    }

    /// The primary of each shard, in the order of the slots, as far as there is one.
    pub(crate) async fn primaries(&self) -> Result<Vec<Option<SocketAddr>>> {
        let mut client = self.client();
        client.refresh().await?;
        Ok(client.ranges().iter().map(|range| range.members.first().copied()).collect())
    }

    async fn writers(&self) -> Result<Writers> {
        Writers::start(&self.book, self.password.as_deref(), Duration::from_millis(1)).await
    }
}

/// Writes the manifest of a cluster with that spec; at once, since it is watched.
pub(crate) fn manifest(folder: &Path, spec: &Value) -> Result<PathBuf> {
    let file = folder.join(MANIFEST);
    let object = json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "CacheCluster", "metadata": {"name": "demo"}, "spec": spec,
    });
    let new = file.with_extension("yaml.new");
    std::fs::write(&new, object.to_string())?;
    std::fs::rename(&new, &file)?;
    Ok(file)
}

async fn local_example_forms_and_finds_its_data_again(scene: Scene) -> Result {
    let example = tools::project().join("examples/minimal.yaml");
    let state = scene.state();
    let start = clock::now();
    let local = Local::start(&example, &state).await?;
    println!("      Ready after {}", seconds(start.elapsed()));
    let writers = local.writers().await?;
    thousand(&writers).await?;
    let ledgers = writers.stop().await;
    local.stop().await?;
    let again = Local::start(&example, &state).await?;
    let loss = ledger::check(&again.book, again.password.as_deref(), &ledgers).await?;
    crate::ensure!(
        loss.lost.is_empty(),
        "{} of {} writes lost",
        loss.lost.len(),
        loss.acknowledged
    );
    again.stop().await
}

async fn local_primary_killed_writes_resume(scene: Scene) -> Result {
    let spec = &json!({"shards": 3, "replicasPerShard": 1, "memory": "64Mi"});
    let local = scene.run(spec).await?;
    let writers = local.writers().await?;
    let mut client = local.client();
    let mut gaps = Vec::new();
    for round in 0..10 {
        client.refresh().await?;
        let range = client.ranges().get(round % 3).context("a shard")?;
        let primary = *range.members.first().context("a primary")?;
        let pid = local.pid_of(primary).await?;
        writers.reset_gaps();
        crate::sh!("kill", "-KILL", pid)?;
        writers.all_resume(Duration::from_secs(30)).await?;
        let gap = writers.gaps().into_iter().max().unwrap_or_default();
        gaps.push(gap.as_millis());
        whole(&local).await?;
    }
    println!("      write gaps in ms: {gaps:?}");
    let ledgers = writers.stop().await;
    let loss = ledger::check(&local.book, local.password.as_deref(), &ledgers).await?;
    println!("      {} writes acknowledged, {} lost", loss.acknowledged, loss.lost.len());
    crate::ensure!(gaps.iter().all(|gap| *gap <= 3000), "writes did not resume within 3 s");
    local.stop().await
}

/// A process that is asked to end hands over first: no request fails, and nobody waits long.
async fn local_primary_ended_hands_over(scene: Scene) -> Result {
    let spec = &json!({"shards": 3, "replicasPerShard": 1, "memory": "64Mi"});
    let local = scene.run(spec).await?;
    let writers = local.writers().await?;
    let mut client = local.client();
    let mut gaps = Vec::new();
    for round in 0..9 {
        whole(&local).await?;
        client.refresh().await?;
        let range = client.ranges().get(round % 3).context("a shard")?;
        let primary = *range.members.first().context("a primary")?;
        let pid = local.pid_of(primary).await?;
        writers.reset_gaps();
        crate::sh!("kill", "-TERM", pid)?;
        eventually("another primary", Duration::from_secs(30), || async {
            let mut client = local.client();
            client.refresh().await?;
            let same = client.ranges().iter().any(|r| r.members.first() == Some(&primary));
            crate::ensure!(!same, "{primary} is primary still");
            crate::ensure!(local.pid_of(primary).await? != pid, "{primary} has not ended");
            Ok(())
        })
        .await?;
        writers.all_resume(Duration::from_secs(30)).await?;
        gaps.push(writers.gaps().into_iter().max().unwrap_or_default().as_millis());
    }
    println!("      write gaps in ms: {gaps:?}");
    ledger::nothing_felt(&local.book, local.password.as_deref(), writers).await?;
    local.stop().await
}

/// The manifest is edited while clients write: shards come and go, and nobody who follows redirections feels it.
async fn local_shards_added_and_taken_away(scene: Scene) -> Result {
    let spec = |shards: usize| json!({"shards": shards, "replicasPerShard": 1, "memory": "64Mi"});
    let local = scene.run(&spec(2)).await?;
    let writers = local.writers().await?;
    thousand(&writers).await?;
    for shards in [3, 1, 2] {
        scene.wish(&spec(shards))?;
        let start = clock::now();
        eventually(
            &format!("{shards} shards share the slots"),
            Duration::from_secs(120),
            || async {
                let mut client = local.client();
                client.ensure_even(shards).await
            },
        )
        .await?;
        println!("      {shards} shards after {}", seconds(start.elapsed()));
    }
    ledger::nothing_felt(&local.book, local.password.as_deref(), writers).await?;
    local.stop().await
}

async fn local_all_killed_at_once_come_back(scene: Scene) -> Result {
    let spec = json!({
        "shards": 3, "replicasPerShard": 1, "memory": "64Mi",
        "persistence": {"aof": {"fsync": "always"}, "volume": {"size": "1Gi"}},
    });
    let local = scene.run(&spec).await?;
    let writers = local.writers().await?;
    thousand(&writers).await?;
    let ledgers = writers.stop().await;
    let mut pids = Vec::new();
    for address in local.book.all() {
        pids.push(local.pid_of(address).await?);
    }
    for pid in &pids {
        crate::sh!("kill", "-KILL", pid)?;
    }
    whole(&local).await?;
    let loss = ledger::check(&local.book, local.password.as_deref(), &ledgers).await?;
    crate::ensure!(
        loss.lost.is_empty(),
        "{} of {} writes lost",
        loss.lost.len(),
        loss.acknowledged
    );
    local.stop().await
}

/// With `durability: Quorum` a shard is one register for each key, whatever befalls its primaries: killed, ended, or stopped for
/// longer than their lease and then going on as if nothing had been.
async fn local_quorum_is_linearizable(scene: Scene) -> Result {
    let spec =
        json!({"shards": 2, "replicasPerShard": 2, "memory": "64Mi", "durability": "Quorum"});
    linearizable(&scene, spec, &["-KILL", "-STOP", "-TERM", "-STOP", "-KILL", "-STOP"]).await
}

/// The same for shards of two that go on with one member, with a replica that is gone each time before the primary goes.
async fn local_shards_that_go_on_alone_are_linearizable(scene: Scene) -> Result {
    let spec = json!({
        "shards": 2, "replicasPerShard": 1, "memory": "64Mi", "durability": "Quorum", "minInSync": 1,
    });
    linearizable(&scene, spec, &["-KILL", "-STOP", "-TERM", "-STOP"]).await
}

async fn linearizable(scene: &Scene, spec: serde_json::Value, signals: &[&str]) -> Result {
    let goes_on_alone = spec["minInSync"] == 1;
    let local = scene.run(&spec).await?;
    let probes = Probes::start(&local.book, local.password.as_deref()).await?;
    let mut client = local.client();
    for (round, signal) in signals.iter().enumerate() {
        whole(&local).await?;
        client.refresh().await?;
        let range = client.ranges().get(round % 2).context("a shard")?;
        let primary = *range.members.first().context("a primary")?;
        let tag = &probes.tags()[round % 2];
        let mut stopped = Vec::new();
        if goes_on_alone {
            let replica = *range.members.get(1).context("a replica")?;
            let pid = local.pid_of(replica).await?;
            crate::sh!("kill", "-STOP", &pid)?;
            stopped.push(pid);
            let served = goes_on(&probes, tag, 500).await;
            served.context(format!("without its replica {replica}"))?;
        }
        let pid = local.pid_of(primary).await?;
        crate::sh!("kill", signal, &pid)?;
        if *signal == "-STOP" {
            stopped.push(pid);
        }
        if goes_on_alone {
            // Whoever was alone is the only one that may serve, when it is back.
            for pid in stopped.drain(..) {
                crate::sh!("kill", "-CONT", &pid)?;
            }
        }
        let served = goes_on(&probes, tag, 500).await;
        for pid in stopped {
            crate::sh!("kill", "-CONT", &pid)?;
        }
        served.context(format!("after {signal} to {primary}"))?;
    }
    whole(&local).await?;
    probes.check(Vec::new()).await?;
    local.stop().await
}

/// Waits until so many more operations on the keys of a tag have ended.
pub(crate) async fn goes_on(probes: &Probes, tag: &str, more: usize) -> Result {
    let goal = probes.ended(tag) + more;
    eventually("the shard serves", Duration::from_secs(30), || async {
        let ended = probes.ended(tag);
        crate::ensure!(ended >= goal, "{ended} of {goal} operations");
        Ok(())
    })
    .await
}

async fn thousand(writers: &Writers) -> Result {
    eventually("a thousand writes to each shard", Duration::from_secs(60), || async {
        let least = writers.ledgers().iter().map(|ledger| ledger.acks.len()).min().unwrap_or(0);
        crate::ensure!(least >= 1000, "{least} so far");
        Ok(())
    })
    .await
}

/// Waits until every primary sees its replica in sync.
pub(crate) async fn whole(local: &Local) -> Result {
    eventually("every primary has its replica", Duration::from_secs(60), || async {
        let mut client = local.client();
        client.refresh().await?;
        for range in client.ranges().to_vec() {
            let primary = *range.members.first().context("a primary")?;
            let info = client
                .call_at(primary, &["INFO", "replication"])
                .await?
                .ok()?
                .text()
                .unwrap_or_default();
            crate::ensure!(info.contains("state=online"), "{primary} has no replica in sync");
        }
        Ok(())
    })
    .await
}
