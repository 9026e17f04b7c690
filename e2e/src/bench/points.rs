//! What grows in a curve, at which points it is measured, and what a point needs of the machine.

use super::machine::Machine;
use super::wire::Workload;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Curve {
    /// Keys: a thousand to ten million.
    Keys,
    /// Bytes of a value: 16 to 65,536.
    Value,
    /// Busy connections: 1 to 10,000.
    Connections,
    /// Members of one collection: ten to a million.
    Members,
}

const KEYS_MAX: u64 = 10_000_000;
const MEMBERS_MAX: u64 = 1_000_000;
const CONNECTIONS_MAX: u64 = 10_000;
/// Keys while values grow: at 64 KiB each they are 640 MiB.
const KEYS_OF_VALUES: u64 = 10_000;

/// Bytes beside key and value that any of the servers takes for one, at most.
const OVERHEAD: u64 = 200;
/// Bytes of both ends of a connection, in the kernel, the server and the client.
const CONNECTION: u64 = 128 * 1024;
/// Files that a process has open beside its connections.
const OTHER_FILES: u64 = 128;

/// What holds while one point is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    /// Keys that exist, or members.
    pub(super) keys: u64,
    pub(super) value: usize,
    pub(super) connections: usize,
}

impl Curve {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Value => "value",
            Self::Connections => "connections",
            Self::Members => "members",
        }
    }

    pub(super) fn axis(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Value => "bytes of a value",
            Self::Connections => "busy connections",
            Self::Members => "members",
        }
    }

    /// Where it is measured; `most`: no further, in keys and members.
    pub(super) fn points(self, most: Option<u64>) -> Vec<u64> {
        match self {
            Self::Keys => steps(1_000, most.unwrap_or(KEYS_MAX), 10),
            Self::Value => steps(16, 64 * 1024, 4),
            Self::Connections => steps(1, CONNECTIONS_MAX, 10),
            Self::Members => steps(10, most.unwrap_or(MEMBERS_MAX).min(MEMBERS_MAX), 10),
        }
    }

    /// What a point sets, and what stays as `rest` has it.
    pub(super) fn setting(self, at: u64, rest: Setting) -> Setting {
        match self {
            Self::Keys | Self::Members => Setting { keys: at, ..rest },
            Self::Value => {
                Setting { keys: rest.keys.min(KEYS_OF_VALUES), value: at as usize, ..rest }
            }
            Self::Connections => Setting { connections: at as usize, ..rest },
        }
    }

    /// Requests that are in flight on each connection, where nobody says how many. One each, where it is connections that
    /// are looked at: their cost is that of events.
    pub(super) fn pipeline(self) -> usize {
        if self == Self::Connections { 1 } else { 16 }
    }

    /// What is measured together on the same servers, each list on servers of its own.
    pub(super) fn workloads(self, asked: &[Workload]) -> Vec<Vec<Workload>> {
        match self {
            Self::Members => {
                let large = [Workload::Hset, Workload::Zmove, Workload::Sadd, Workload::Lindex];
                large.map(|workload| vec![workload]).to_vec()
            }
            _ => vec![asked.to_vec()],
        }
    }
}

/// What makes the members or keys that a workload asks for.
pub(super) fn filler(workload: Workload) -> Workload {
    match workload {
        Workload::Hset | Workload::Sadd | Workload::Zadd | Workload::Zmove | Workload::Incr => {
            workload
        }
        Workload::Hget => Workload::Hset,
        Workload::Lindex | Workload::Lpush | Workload::Rpush | Workload::Rpop => Workload::Rpush,
        Workload::Ping
        | Workload::Set
        | Workload::Get
        | Workload::Mix
        | Workload::Mget
        | Workload::Mget16 => Workload::Set,
    }
}

fn steps(from: u64, to: u64, times: u64) -> Vec<u64> {
    if to < from {
        return vec![to.max(1)];
    }
    std::iter::successors(Some(from), |at| at.checked_mul(times))
        .take_while(|at| *at <= to)
        .collect()
}

impl Setting {
    /// Why the machine cannot have this on so many servers that hold `filled` keys already; `None`: it can.
    pub(super) fn obstacle(self, filled: u64, servers: usize, machine: &Machine) -> Option<String> {
        let key = self.value as u64 + OVERHEAD;
        let connections = self.connections as u64;
        let needed =
            self.keys.saturating_sub(filled) * key * servers as u64 + connections * CONNECTION;
        // A fifth is left for what else the machine does.
        let room = machine.memory / 5 * 4;
        if needed > room {
            let (needed, memory) = (gib(needed), gib(machine.memory));
            let available = format!("{memory} GiB are available, and a fifth of that is kept free");
            return Some(format!("it takes {needed} GiB for {servers} server(s); {available}"));
        }
        let files = connections + OTHER_FILES;
        (files > machine.files).then(|| {
            format!("it takes {files} open files; {} are allowed (ulimit -n)", machine.files)
        })
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 30))
}

/// A count in few letters.
pub(super) fn short(count: u64) -> String {
    match count {
        1_000_000.. if count.is_multiple_of(1_000_000) => format!("{}M", count / 1_000_000),
        1_000.. if count.is_multiple_of(1_000) => format!("{}k", count / 1_000),
        _ => count.to_string(),
    }
}

/// A number of bytes in few letters.
pub(super) fn short_bytes(bytes: u64) -> String {
    match bytes {
        1024.. if bytes.is_multiple_of(1024) => format!("{} Ki", bytes / 1024),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Setting = Setting { keys: 100_000, value: 64, connections: 50 };

    #[test]
    fn points_are_even_steps_up_to_the_most() {
        assert_eq!(Curve::Keys.points(None).len(), 5);
        assert_eq!(Curve::Keys.points(None).last(), Some(&10_000_000));
        assert_eq!(Curve::Keys.points(Some(20_000)), [1_000, 10_000]);
        assert_eq!(Curve::Keys.points(Some(300)), [300]);
        assert_eq!(Curve::Members.points(None), [10, 100, 1_000, 10_000, 100_000, 1_000_000]);
        assert_eq!(Curve::Members.points(Some(10_000_000)).last(), Some(&1_000_000));
        assert_eq!(Curve::Value.points(Some(1)), [16, 64, 256, 1024, 4096, 16_384, 65_536]);
        assert_eq!(Curve::Connections.points(None), [1, 10, 100, 1_000, 10_000]);
    }

    #[test]
    fn one_thing_grows_and_the_rest_stays() {
        let keys = Setting { keys: 7, ..REST };
        assert_eq!(Curve::Keys.setting(7, REST), keys);
        assert_eq!(Curve::Members.setting(7, REST), keys);
        assert_eq!(
            Curve::Value.setting(1024, REST),
            Setting { keys: 10_000, value: 1024, connections: 50 }
        );
        assert_eq!(Curve::Connections.setting(9, REST), Setting { connections: 9, ..REST });
    }

    #[test]
    fn what_does_not_fit_is_told_with_figures() {
        let large = Machine { memory: 24 << 30, files: 20_000 };
        let ten_million = Curve::Keys.setting(10_000_000, REST);
        assert_eq!(ten_million.obstacle(0, 2, &large), None);
        let small = Machine { memory: 4 << 30, ..large };
        let why = ten_million.obstacle(0, 2, &small).unwrap();
        let told = "it takes 4.9 GiB for 2 server(s); 4.0 GiB are available, and a fifth of that is kept free";
        assert_eq!(why, told);
        assert_eq!(ten_million.obstacle(9_000_000, 2, &small), None, "most of it is there");
        let few = Machine { files: 1024, ..large };
        let why = Curve::Connections.setting(10_000, REST).obstacle(0, 2, &few).unwrap();
        assert_eq!(why, "it takes 10128 open files; 1024 are allowed (ulimit -n)");
    }

    #[test]
    fn every_member_that_is_asked_for_was_made_by_a_write_of_its_kind() {
        for workload in Curve::Members.workloads(&[]).concat() {
            assert_ne!(filler(workload), Workload::Set, "{workload:?}");
        }
    }

    #[test]
    fn counts_are_short() {
        assert_eq!([1, 10, 1_000, 1_500, 100_000].map(short), ["1", "10", "1k", "1500", "100k"]);
        assert_eq!(short(10_000_000), "10M");
        assert_eq!([16, 1024, 65_536].map(short_bytes), ["16", "1 Ki", "64 Ki"]);
    }
}
