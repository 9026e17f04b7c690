//! Scenario files that every driver runs: wishes and faults, and what has to come of them.

use crds::CacheClusterStatus;
use crds::reasons::{condition, reason};

pub(crate) enum Line {
    /// The manifest says so from now on.
    Desired { shards: u16, replicas: u16 },
    /// The process of this member is killed; it comes back by itself.
    Kill(String),
    /// The disk of this member is lost, and its process with it.
    Wipe(String),
    /// The disks of all these are lost at once, and their processes with them.
    WipeAll(Vec<String>),
    /// In the end the council is lost for good.
    ExpectLost,
    /// The manifest says that those who are left go on.
    Recover { incarnation: u64 },
    /// In the end so many members are there, each in its role and in sync.
    Expect { members: usize },
}

/// All scenarios, by the names of their files.
pub(crate) fn all() -> Vec<(String, Vec<Line>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
        (path.display().to_string(), lines.map(parse).collect())
    };
    files.into_iter().map(read).collect()
}

fn parse(line: &str) -> Line {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |key: &str| {
        let word = words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        word.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no {key}: {line}"))
    };
    match words[0] {
        "desired" => Line::Desired { shards: number("shards"), replicas: number("replicas") },
        "kill" => Line::Kill(words[1].into()),
        "wipe" => Line::Wipe(words[1].into()),
        "wipe-all" => Line::WipeAll(words[1..].iter().map(|w| (*w).to_string()).collect()),
        "expect-lost" => Line::ExpectLost,
        "recover" => Line::Recover { incarnation: number("incarnation").into() },
        "expect" => Line::Expect { members: number("members").into() },
        _ => panic!("not a line of a scenario: {line}"),
    }
}

/// What an `expect-lost` asks of the account of a round.
pub(crate) fn is_lost(status: &CacheClusterStatus) -> bool {
    let ready = status.condition(condition::READY);
    ready.is_some_and(|c| c.status == "False" && c.reason == reason::COUNCIL_LOST)
}

/// What an `expect` asks of the account of a round.
pub(crate) fn is_as_expected(status: &CacheClusterStatus, members: usize) -> bool {
    let is = |type_, wanted| status.condition(type_).is_some_and(|c| c.status == wanted);
    is(condition::READY, "True")
        && is(condition::PROGRESSING, "False")
        && is(condition::DEGRADED, "False")
        && status.ready.as_deref() == Some(format!("{members}/{members}").as_str())
        && status.shards.iter().all(|s| s.primary.is_some() && !s.slots.is_empty())
}
