//! Real processes: `larder run` as a user starts it, with a client that follows redirections.

#[path = "common/scenario.rs"]
mod scenario;

#[path = "local/client.rs"]
mod client;
#[path = "local/cluster.rs"]
mod cluster;

use std::sync::{Mutex, MutexGuard, PoisonError};

use client::Client;
use cluster::{Cluster, eventually};
use scenario::Line;

const THREE_SHARDS: &str = "{shards: 3}";

/// One cluster at a time: each is six processes.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fill(client: &mut Client, keys: std::ops::Range<u32>) {
    for key in keys {
        let key = format!("key:{key}");
        // A member may hear a moment later than the operator who its neighbours' primaries are.
        eventually("a write", || {
            client.call(&["SET", &key, &key]).is_ok_and(|reply| reply == "OK")
        });
    }
}

fn missing(client: &mut Client, keys: std::ops::Range<u32>) -> Vec<u32> {
    keys.filter(|key| {
        let key = format!("key:{key}");
        client.call(&["GET", &key]).unwrap() != key
    })
    .collect()
}

#[test]
fn data_is_there_after_a_stop_and_a_start() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), THREE_SHARDS);
    assert_eq!(cluster.endpoints.len(), 6);
    let mut client = Client::new(&cluster.endpoints, &cluster.password);
    fill(&mut client, 0..1000);
    assert_eq!(missing(&mut client, 0..1000), Vec::<u32>::new());
    let before = (cluster.endpoints.clone(), cluster.password.clone());
    cluster.stop();

    let cluster = Cluster::start(dir.path(), THREE_SHARDS);
    assert_eq!((cluster.endpoints.clone(), cluster.password.clone()), before);
    let mut client = Client::new(&cluster.endpoints, &cluster.password);
    assert_eq!(missing(&mut client, 0..1000), Vec::<u32>::new());
    cluster.stop();
}

#[test]
fn without_the_password_nothing_is_served() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), "{shards: 1, replicasPerShard: 0}");
    let mut stranger = Client::new(&cluster.endpoints, "");
    for command in [&["GET", "a"][..], &["SET", "a", "1"], &["CLUSTER", "NODES"], &["KEYS", "*"]] {
        let refused = stranger.call(command).unwrap_err();
        assert!(refused.starts_with("NOAUTH"), "{command:?}: {refused}");
    }
    cluster.stop();
}

#[test]
fn a_cluster_by_tls_serves_and_fails_over_and_has_no_plain_port() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let spec = "{shards: 1, replicasPerShard: 2, tls: {}, memcached: {enabled: true}}";
    let cluster = Cluster::start(dir.path(), spec);
    let ca = dir.path().join("data/tls/member/ca.crt");
    let cli = |options: &[&str], port: &str, words: &str| {
        let output = std::process::Command::new("redis-cli")
            .args([
                "-c",
                "-h",
                "127.0.0.1",
                "-p",
                port,
                "-a",
                &cluster.password,
                "--no-auth-warning",
            ])
            .args(options)
            .args(words.split(' '))
            .output();
        output.map(|o| String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).trim().to_owned())
    };
    let options = ["--tls", "--cacert", ca.to_str().unwrap()];
    let ports: Vec<_> =
        cluster.endpoints.iter().map(|e| e.rsplit(':').next().unwrap().to_owned()).collect();
    if cli(&options, &ports[0], "PING").is_err() {
        println!("skipped: there is no redis-cli");
        return cluster.stop();
    }
    let ask = |port: &str, words: &str| cli(&options, port, words).unwrap();
    eventually("a write", || ask(&ports[0], "SET k v") == "OK");
    assert_ne!(cli(&[], &ports[0], "PING").unwrap(), "PONG");
    let memcached: u16 = ports[0].parse::<u16>().unwrap() + 4_000;
    assert!(std::net::TcpStream::connect(("127.0.0.1", memcached)).is_ok());
    // Replicas follow by TLS: the value is there after each of them was primary.
    assert_eq!(ask(&ports[0], "WAIT 2 20000"), "2");
    cluster.kill("demo-0-0");
    eventually("the others serve", || ask(&ports[1], "GET k") == "v");
    eventually("the others take writes", || ask(&ports[2], "SET k w") == "OK");
    eventually("who was killed is back", || ask(&ports[0], "GET k") == "w");
    cluster.stop();
}

#[test]
fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), THREE_SHARDS);
    let mut client = Client::new(&cluster.endpoints, &cluster.password);
    fill(&mut client, 0..300);
    let status = cluster.status();
    let primary = status["shards"][0]["primary"].as_str().unwrap().to_string();
    cluster.kill(&primary);
    eventually("writes go on in every shard", || {
        (0..50).all(|key| client.call(&["SET", &format!("after:{key}"), "1"]).is_ok())
    });
    eventually("the cluster is whole again", || {
        let status = cluster.status();
        let settled = status["conditions"][1]["reason"] == "Settled";
        settled && status["ready"] == "6/6"
    });
    cluster.stop();
}

#[test]
fn what_survivors_of_a_lost_council_have_is_served_again_once_the_manifest_says_so() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let spec = "shards: 1, replicasPerShard: 4";
    let cluster = Cluster::start(dir.path(), &format!("{{{spec}}}"));
    let mut client = Client::new(&cluster.endpoints, &cluster.password);
    fill(&mut client, 0..200);
    let primary = cluster.status()["shards"][0]["primary"].as_str().unwrap().to_string();
    let members: Vec<String> = (0..5).map(|index| format!("demo-0-{index}")).collect();
    let replicas = members.iter().filter(|m| **m != primary).map(String::as_str);
    let lost: Vec<&str> = replicas.take(2).chain([primary.as_str()]).collect();
    let index: usize = primary.rsplit('-').next().unwrap().parse().unwrap();
    let at = cluster.endpoints[index].clone();
    eventually("every replica has all", || {
        client.call_at(&at, &["WAIT", "4", "100"]).is_ok_and(|count| count == "4")
    });
    // What is told of survivors is what they know of themselves.
    eventually("every member knows that all are in sync", || {
        cluster.endpoints.iter().all(|at| {
            let told = client.call_at(at, &["SENTINEL", "REPLICAS", "demo"]);
            told.is_ok_and(|told| told.matches("master-link-status ok").count() == 4)
        })
    });
    cluster.wipe_all(&lost);
    eventually("the council is lost", || {
        scenario::is_lost(&serde_json::from_value(cluster.status()).unwrap())
    });
    let said = cluster.status()["conditions"][0]["message"].as_str().unwrap().to_string();
    assert!(said.contains("spec.recovery.incarnation: 2"), "{said}");
    assert!(said.contains("in sync when last heard of"), "{said}");
    assert!(client.call(&["SET", "key:0", "other"]).is_err(), "nobody has a lease");

    cluster::manifest(dir.path(), &format!("{{{spec}, recovery: {{incarnation: 2}}}}"));
    eventually("all five are there again", || {
        scenario::is_as_expected(&serde_json::from_value(cluster.status()).unwrap(), 5)
    });
    assert_eq!(cluster.status()["incarnation"], 2);
    assert_eq!(missing(&mut client, 0..200), Vec::<u32>::new());
    fill(&mut client, 200..300);
    assert_eq!(missing(&mut client, 0..300), Vec::<u32>::new());
    cluster.stop();
}

#[test]
fn members_end_with_their_larder() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), "{shards: 1, replicasPerShard: 0}");
    let pids = cluster.pids();
    assert_eq!(pids.len(), 1);
    cluster.kill_larder();
    eventually("no member is left", || pids.iter().all(|pid| !cluster::is_alive(*pid)));
}

#[test]
fn a_wrong_manifest_is_refused_with_the_name_of_the_field() {
    let dir = tempfile::tempdir().unwrap();
    let said = cluster::refused(dir.path(), "{shards: 3, replica: 1}");
    assert!(said.contains("spec.replica: is not a field of CacheCluster"), "{said}");
    assert!(!dir.path().join("data").exists(), "nothing was made");
}

#[test]
fn the_plan_is_told_and_nothing_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let said = cluster::planned(dir.path(), THREE_SHARDS);
    let created = said.lines().filter(|l| l.starts_with("FormCluster: create member=")).count();
    assert_eq!(created, 6, "{said}");
    assert!(!dir.path().join("data").exists(), "nothing was made");
}

#[test]
fn scenarios_end_as_they_say() {
    let _alone = alone();
    for (file, lines) in scenario::all() {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = None;
        let mut spec = String::new();
        for line in lines {
            match (line, &cluster) {
                (Line::Desired { shards, replicas }, there) => {
                    spec = format!("shards: {shards}, replicasPerShard: {replicas}");
                    let wish = format!("{{{spec}}}");
                    if there.is_some() {
                        cluster::manifest(dir.path(), &wish);
                    } else {
                        cluster = Some(Cluster::start(dir.path(), &wish));
                    }
                }
                (Line::Recover { incarnation }, Some(_)) => {
                    let wish = format!("{{{spec}, recovery: {{incarnation: {incarnation}}}}}");
                    cluster::manifest(dir.path(), &wish);
                }
                (Line::Kill(name), Some(cluster)) => cluster.kill(&name),
                (Line::Wipe(name), Some(cluster)) => cluster.wipe_all(&[&name]),
                (Line::WipeAll(names), Some(cluster)) => {
                    cluster.wipe_all(&names.iter().map(String::as_str).collect::<Vec<_>>());
                }
                (Line::ExpectLost, Some(cluster)) => {
                    eventually(&format!("{file}: the council is lost"), || {
                        scenario::is_lost(&serde_json::from_value(cluster.status()).unwrap())
                    });
                }
                (Line::Expect { members }, Some(cluster)) => {
                    eventually(&format!("{file}: {members} members"), || {
                        let status = serde_json::from_value(cluster.status()).unwrap();
                        scenario::is_as_expected(&status, members)
                    });
                }
                (_, None) => panic!("{file}: nothing is desired yet"),
            }
        }
        cluster.unwrap().stop();
    }
}
