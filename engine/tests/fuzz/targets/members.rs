//! What members say to each other: frames of the bus, messages of the council, batches of its log.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use engine::bus::frame::{self, Envelope};
use engine::council::message::{Body, Message};
use engine::council::settings::Settings;
use engine::council::{Council, disk};
use engine::topology::{Change, Member, Topology, even_slots};

use super::{Target, owned, shape};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "bus",
        seeds: frames,
        words: &[
            b"\"Ask\":",
            b"\"Report\"",
            b"{\"",
            b"\":",
            b"[",
            b"]",
            b"null",
            b"\n",
            b"18446744073709551615",
        ],
        runs: 10_000,
        feed: bus,
    },
    Target {
        name: "council",
        seeds: messages,
        words: &[
            b"{\"Raft\":\"",
            b"\"epoch\":",
            b"\"term\":",
            b"{\"Beat\":",
            b"{\"Heard\":",
            b"\n",
            b"{\"Topology\":",
            b"18446744073709551615",
        ],
        runs: 3_000,
        feed: council,
    },
];

const ME: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const CLUSTER: &str = "cccccccccccccccccccccccccccccccccccccccc";

fn member(id: &str, name: &str) -> Member {
    Member {
        id: id.into(),
        name: name.into(),
        host: "localhost".into(),
        port: 7000,
        tls_port: 0,
        bus_port: 17000,
        shard: Some(0),
        node: None,
        zone: None,
    }
}

/// A council of one, which leads, with another member that is to be a voter.
fn founder() -> Council {
    let mut council =
        Council::new(ME.into(), "boot".into(), Settings::new(5_000), 1, Default::default(), 0)
            .unwrap();
    council.form(1, CLUSTER.into(), 1, &member(ME, "demo-0-0"), &[even_slots(0, 1)]).unwrap();
    settle(&mut council, 2);
    council.propose(3, Change::Join(member(OTHER, "demo-0-1")), None);
    settle(&mut council, 4);
    council
}

/// A member that has been told of that cluster, and votes in it once its leader says so.
fn follower(topology: Topology) -> Council {
    let mut council =
        Council::new(OTHER.into(), "boot".into(), Settings::new(5_000), 2, Default::default(), 0)
            .unwrap();
    council.adopt(1, topology).unwrap();
    settle(&mut council, 2);
    council
}

/// Everything is on disk; what it has to say.
fn settle(council: &mut Council, now_ms: u64) -> Vec<(String, Message)> {
    let mut said = Vec::new();
    for _ in 0..8 {
        let output = council.drain();
        said.extend(output.messages);
        let Some(last) = output.batches.last() else { break };
        for batch in &output.batches {
            let bytes = disk::encode(&batch.records).unwrap();
            assert_eq!(disk::decode(&bytes), (batch.records.clone(), bytes.len()));
        }
        council.persisted(now_ms, last.number);
    }
    said
}

/// What the two say to each other when all goes well: `to` is whom it is said to.
fn conversation() -> Vec<(String, Message)> {
    let mut leader = founder();
    let mut other = follower(Topology::clone(leader.topology().unwrap()));
    let mut all = Vec::new();
    for round in 0..40u64 {
        let now_ms = 10 + round * 100;
        leader.report(now_ms, Default::default());
        other.report(now_ms, Default::default());
        leader.tick(now_ms);
        other.tick(now_ms);
        let said = [settle(&mut leader, now_ms), settle(&mut other, now_ms)].concat();
        for (to, message) in said {
            if to == ME {
                leader.receive(now_ms, &OTHER.into(), message.clone());
            } else if to == OTHER {
                other.receive(now_ms, &ME.into(), message.clone());
            }
            all.push((to, message));
        }
    }
    all
}

fn json(of: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(of).unwrap()
}

/// One of each kind, and each one's length.
fn frames() -> Vec<Vec<u8>> {
    let mut seeds = owned(&[
        b"{\"Hello\":{\"version\":1,\"member\":null}}\n{\"Ask\":\"Report\"}",
        b"{\"Answer\":{\"Refused\":{\"reason\":\"no\"}}}\n{\"Answer\":{\"Done\":{\"epoch\":1}}}",
        b"{\"Meet\":{\"Come\":{\"host\":\"h\",\"bus_port\":1}}}\n{\"Met\":\"Coming\"}",
        b"{\"Ask\":{\"Configure\":{\"hash\":\"h\",\"directives\":[[\"maxmemory\",\"1\"]]}}}\n{\"Ask\":\"Shutdown\"}",
        b"\x00\x00\x00\x10{\"Ask\":\"Report\"}",
    ]);
    let mut kinds = std::collections::BTreeSet::new();
    for (_, message) in conversation() {
        let line = json(&Envelope::Council(Box::new(message.clone())));
        if kinds.insert(kind(&message.body)) {
            seeds.push(line);
        }
    }
    seeds
}

fn kind(body: &Body) -> String {
    format!("{body:?}").split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

/// What never waits is there at the first look.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a buffer in memory was waited for"),
    }
}

/// Frames as they are, or a line of JSON for each: refused, or the same when they are sent on.
fn bus(input: &[u8]) -> u64 {
    let whole = if input.first().is_some_and(|b| *b < b' ') {
        input.to_vec()
    } else {
        let frame = |line: &[u8]| [&(line.len() as u32).to_be_bytes(), line].concat();
        input.split(|b| *b == b'\n').flat_map(frame).collect()
    };
    let (mut rest, mut seen) = (whole.as_slice(), Vec::new());
    loop {
        match now(frame::read::<_, Envelope>(&mut rest)) {
            Ok(None) => return shape(seen),
            Ok(Some(envelope)) => {
                let bytes = frame::encode(&envelope).unwrap();
                let again = now(frame::read::<_, Envelope>(&mut bytes.as_slice()));
                let again = again.unwrap_or_else(|error| panic!("read back: {error}"));
                assert_eq!(format!("{:?}", Some(&envelope)), format!("{:?}", again.as_ref()));
                seen.push(
                    format!("{envelope:?}").split(['(', ' ', '{']).next().unwrap_or_default().len(),
                );
            }
            Err(error) => {
                let text = error.to_string();
                return shape((seen, text.split([' ', '`']).take(3).collect::<String>()));
            }
        }
    }
}

/// Bodies of messages as lines of JSON, or of the Raft library's as bytes; `0`: to the leader, `1`: to the follower.
fn messages() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for to in [ME, OTHER] {
        let digit = if to == ME { b'0' } else { b'1' };
        let said: Vec<Body> =
            conversation().into_iter().filter(|(t, _)| t == to).map(|(_, m)| m.body).collect();
        for some in said.chunks(3).take(12) {
            let lines: Vec<Vec<u8>> = some.iter().map(json).collect();
            seeds.push([&[digit], lines.join(&b'\n').as_slice()].concat());
        }
        for body in said.iter().take(40) {
            if let Body::Raft(bytes) = body {
                seeds.push([&[digit + 2], bytes.as_slice()].concat());
            }
        }
    }
    seeds
}

/// Another member of the same council, which is one by its certificate, says what it should not.
fn council(input: &[u8]) -> u64 {
    let Some((digit, rest)) = input.split_first() else { return 0 };
    let leader = founder();
    let to_leader = digit.is_multiple_of(2);
    let (mut council, from) = if to_leader {
        (leader, OTHER)
    } else {
        (follower(Topology::clone(leader.topology().unwrap())), ME)
    };
    let from = from.to_owned();
    let bodies: Vec<Body> = if digit & 2 == 0 {
        let lines = rest.split(|b| *b == b'\n').take(16);
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    } else {
        vec![Body::Raft(rest.to_vec())]
    };
    let (mut now_ms, mut said) = (100, 0);
    for body in bodies {
        let message = Message { cluster: CLUSTER.into(), incarnation: 1, body };
        council.receive(now_ms, &from, message);
        said += settle(&mut council, now_ms).len();
        now_ms += 500;
        council.tick(now_ms);
        said += settle(&mut council, now_ms).len();
    }
    let epoch = council.topology().map(|t| t.epoch);
    shape((digit, said.min(20), epoch, council.leads()))
}
