//! CLIENT MAINT_NOTIFICATIONS: clients that asked for it are told of changes of the cluster before these are felt.
//!
//! Pushes of RESP3, in the forms that the parsers of redis-py and go-redis take (Redis publishes no reference of them):
//!
//! ```text
//! > SMIGRATING   number "0-99,200"                            these slots are about to change their owner
//! > SMIGRATED    number [["from:port" "to:port" "0-99"] ...]  they have: go there
//! > MIGRATED     number                                       they have not, and will not now
//! > FAILING_OVER number seconds                               the primary is about to change: wait for longer
//! > FAILED_OVER  number                                       it has, or stays
//! > MOVING       number seconds "to:port" or null             this process ends: go there, or connect anew
//! ```
//!
//! `number` is an epoch, so that whoever hears of one change from many members knows it for one. A client of a cluster
//! learns where slots are from the first two; MOVING is for those that follow no redirection, and so is sent only
//! where one shard owns every slot, and only by a process that ends. After a handover the former primary stays, and a
//! pool of connections to it would from then on lead to another member: with the next handover its clients would be
//! sent in circles.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::resp::Reply;
use crate::server::Shared;
use crate::session::ClientInfo;
use crate::topology::{Epoch, Member, MemberId, SLOTS, ShardId, SlotRange, Topology, slots_text};

/// How a client wants to be told where to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Not at all: it connects anew to where it is configured to.
    Unnamed,
    Ip,
    Name,
}

/// The words of `moving-endpoint-type`.
pub const ENDPOINTS: &[(&str, Endpoint)] = &[
    ("none", Endpoint::Unnamed),
    ("internal-ip", Endpoint::Ip),
    ("external-ip", Endpoint::Ip),
    ("internal-fqdn", Endpoint::Name),
    ("external-fqdn", Endpoint::Name),
];

/// Who asked to be told.
#[derive(Default)]
pub struct Maintenance {
    count: AtomicUsize,
    clients: RwLock<Vec<(Arc<ClientInfo>, Endpoint)>>,
}

impl Maintenance {
    pub fn add(&self, client: &Arc<ClientInfo>, endpoint: Endpoint) {
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|(c, _)| c.id != client.id);
        clients.push((client.clone(), endpoint));
        self.count.store(clients.len(), Ordering::Release);
    }

    pub fn remove(&self, client: &ClientInfo) {
        if self.any() {
            let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
            clients.retain(|(c, _)| c.id != client.id);
            self.count.store(clients.len(), Ordering::Release);
        }
    }

    pub fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }
}

/// One thing to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    SlotsLeave { number: Epoch, slots: String },
    SlotsLeft { number: Epoch, moves: Vec<[String; 3]> },
    SlotsStay { number: Epoch },
    FailingOver { number: Epoch, seconds: u64 },
    FailedOver { number: Epoch },
    Moving { number: Epoch, seconds: u64, host: String, port: u16 },
}

impl Notice {
    fn bytes(&self, endpoint: Endpoint) -> Vec<u8> {
        let mut out = Reply::new(Vec::new(), true);
        let mut begin = |name: &str, number: Epoch, more: usize| {
            out.push(2 + more);
            out.bulk(name.as_bytes());
            out.int(i64::try_from(number).unwrap_or(i64::MAX));
        };
        match self {
            Self::SlotsLeave { number, slots } => {
                begin("SMIGRATING", *number, 1);
                out.bulk(slots.as_bytes());
            }
            Self::SlotsLeft { number, moves } => {
                begin("SMIGRATED", *number, 1);
                out.array(moves.len());
                for triple in moves {
                    out.array(3);
                    triple.iter().for_each(|word| out.bulk(word.as_bytes()));
                }
            }
            Self::SlotsStay { number } => begin("MIGRATED", *number, 0),
            Self::FailingOver { number, seconds } => {
                begin("FAILING_OVER", *number, 1);
                out.int(i64::try_from(*seconds).unwrap_or(i64::MAX));
            }
            Self::FailedOver { number } => begin("FAILED_OVER", *number, 0),
            Self::Moving { number, seconds, host, port } => {
                begin("MOVING", *number, 2);
                out.int(i64::try_from(*seconds).unwrap_or(i64::MAX));
                let is_ip = host.parse::<std::net::IpAddr>().is_ok();
                match endpoint {
                    Endpoint::Ip if is_ip => out.bulk(format!("{host}:{port}").as_bytes()),
                    Endpoint::Name if !is_ip => out.bulk(format!("{host}:{port}").as_bytes()),
                    // Better the place that the client was configured with than one that it cannot use.
                    _ => out.null(),
                }
            }
        }
        out.out
    }
}

impl Shared {
    /// Tells everybody who asked for it. `what`: the notices for clients who came by TLS, or for those who did not.
    pub fn notify(&self, what: impl Fn(bool) -> Vec<Notice>) {
        if !self.maintenance.any() {
            return;
        }
        let clients = self.maintenance.clients.read().unwrap_or_else(PoisonError::into_inner);
        for by_tls in [false, true] {
            let mut concerned = clients.iter().filter(|(c, _)| c.is_tls() == by_tls).peekable();
            if concerned.peek().is_none() {
                continue;
            }
            let notices = what(by_tls);
            for (client, endpoint) in concerned.filter(|_| !notices.is_empty()) {
                let bytes: Vec<u8> = notices.iter().flat_map(|n| n.bytes(*endpoint)).collect();
                self.deliver(client, bytes.into(), None);
            }
        }
    }

    /// Tells what a new topology changes for the clients of this member.
    pub fn notify_of_change(&self, before: &Topology, after: &Topology, me: &MemberId) {
        self.notify(|by_tls| notices(before, after, me, by_tls));
    }
}

/// What a change means for the clients of member `me`. All hear of slots that have a new owner, for its former one may
/// be dead; of what is about to happen only those who are connected to where it happens.
fn notices(before: &Topology, after: &Topology, me: &MemberId, by_tls: bool) -> Vec<Notice> {
    let mut out = Vec::new();
    let number = after.epoch;
    let leads = |topology: &Topology, shard: ShardId| {
        topology.shards.get(&shard).is_some_and(|s| s.primary.as_ref() == Some(me))
    };
    for begun in after.moves.iter().filter(|m| !before.moves.contains(m)) {
        if leads(after, begun.from) {
            out.push(Notice::SlotsLeave { number: begun.id, slots: slots_text(&begun.slots) });
        }
    }
    for ended in before.moves.iter().filter(|m| !after.moves.contains(m)) {
        let stay =
            ended.slots.first().is_some_and(|range| owner(after, range.first) == Some(ended.from));
        if stay && leads(before, ended.from) {
            out.push(Notice::SlotsStay { number });
        }
    }
    let moves = moved(before, after, by_tls);
    if !moves.is_empty() {
        out.push(Notice::SlotsLeft { number, moves });
    }
    if before.shards.iter().any(|(id, s)| s.primary.as_ref() == Some(me) && !leads(after, *id)) {
        out.push(Notice::FailedOver { number });
    }
    out
}

fn owner(topology: &Topology, slot: u16) -> Option<ShardId> {
    let owns =
        |(_, s): &(&ShardId, &crate::topology::Shard)| s.slots.iter().any(|r| r.contains(slot));
    topology.shards.iter().find(owns).map(|(id, _)| *id)
}

/// Slots that are served elsewhere now: from where, to where, which.
fn moved(before: &Topology, after: &Topology, by_tls: bool) -> Vec<[String; 3]> {
    let mut changed: BTreeMap<(String, String), Vec<SlotRange>> = BTreeMap::new();
    let (old, new) = (servers(before), servers(after));
    for (slot, (from, to)) in (0..SLOTS).zip(old.iter().zip(&new)) {
        let (Some(from), Some(to)) = (from, to) else { continue };
        let (from, to) = (from.client_address(by_tls), to.client_address(by_tls));
        if from == to {
            continue;
        }
        let ranges = changed.entry((from, to)).or_default();
        match ranges.last_mut().filter(|last| last.last + 1 == slot) {
            Some(last) => last.last = slot,
            None => ranges.push(SlotRange { first: slot, last: slot }),
        }
    }
    changed.into_iter().map(|((from, to), ranges)| [from, to, slots_text(&ranges)]).collect()
}

/// The primary that serves each slot.
fn servers(topology: &Topology) -> Vec<Option<&Member>> {
    let mut out = vec![None; usize::from(SLOTS)];
    for shard in topology.shards.values() {
        let primary = shard.primary.as_ref().and_then(|id| topology.members.get(id));
        for range in &shard.slots {
            out[usize::from(range.first)..=usize::from(range.last)].fill(primary);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Move, Shard};

    fn member(id: &str, shard: ShardId, port: u16) -> Member {
        let (name, host) = (id.to_owned(), "10.0.0.1".to_owned());
        let (node, zone) = (None, None);
        Member {
            id: id.into(),
            name,
            host,
            port,
            tls_port: 0,
            bus_port: 1,
            shard: Some(shard),
            node,
            zone,
        }
    }

    fn range(first: u16, last: u16) -> SlotRange {
        SlotRange { first, last }
    }

    /// Shards 0 (a, replica c) and 1 (b).
    fn topology() -> Topology {
        let shard = |primary: &str, slots| Shard {
            primary: Some(primary.into()),
            slots: vec![slots],
            ..Shard::default()
        };
        Topology {
            epoch: 7,
            members: [member("a", 0, 1), member("b", 1, 2), member("c", 0, 3)]
                .map(|m| (m.id.clone(), m))
                .into(),
            shards: [(0, shard("a", range(0, 8191))), (1, shard("b", range(8192, 16383)))].into(),
            ..Topology::default()
        }
    }

    fn told(before: &Topology, after: &Topology, me: &str) -> Vec<Notice> {
        notices(before, after, &me.to_owned(), false)
    }

    #[test]
    fn a_move_is_announced_where_it_begins_and_its_end_everywhere() {
        let before = topology();
        let mut moving = before.clone();
        moving.epoch = 8;
        let slots = vec![range(0, 99), range(200, 200)];
        moving.moves.push(Move { id: 8, slots: slots.clone(), from: 0, to: 1 });
        let leave = Notice::SlotsLeave { number: 8, slots: "0-99,200".into() };
        assert_eq!(told(&before, &moving, "a"), [leave]);
        assert_eq!(told(&before, &moving, "b"), []);

        let mut after = before.clone();
        after.epoch = 9;
        after.shards.get_mut(&0).unwrap().slots = vec![range(100, 199), range(201, 8191)];
        after.shards.get_mut(&1).unwrap().slots.extend(slots);
        let moves = vec![["10.0.0.1:1".into(), "10.0.0.1:2".into(), "0-99,200".into()]];
        let left = Notice::SlotsLeft { number: 9, moves };
        assert_eq!(told(&moving, &after, "a"), std::slice::from_ref(&left));
        assert_eq!(told(&moving, &after, "c"), [left]);

        let cancelled = Topology { epoch: 9, ..before.clone() };
        assert_eq!(told(&moving, &cancelled, "a"), [Notice::SlotsStay { number: 9 }]);
        assert_eq!(told(&moving, &cancelled, "b"), []);
    }

    #[test]
    fn all_hear_of_another_primary_and_its_clients_that_it_is_over() {
        let before = topology();
        let mut after = Topology { epoch: 8, ..before.clone() };
        after.shards.get_mut(&0).unwrap().primary = Some("c".into());
        let moves = vec![["10.0.0.1:1".into(), "10.0.0.1:3".into(), "0-8191".into()]];
        let left = Notice::SlotsLeft { number: 8, moves };
        assert_eq!(told(&before, &after, "b"), std::slice::from_ref(&left));
        assert_eq!(told(&before, &after, "a"), [left, Notice::FailedOver { number: 8 }]);
        let unchanged = Topology { epoch: 9, ..after.clone() };
        assert_eq!(told(&after, &unchanged, "a"), []);
    }

    #[test]
    fn a_client_is_told_a_place_that_it_can_use_or_none() {
        let moving =
            |host: &str| Notice::Moving { number: 5, seconds: 2, host: host.into(), port: 7 };
        let said = |host: &str, endpoint| String::from_utf8(moving(host).bytes(endpoint)).unwrap();
        let head = ">4\r\n$6\r\nMOVING\r\n:5\r\n:2\r\n";
        assert_eq!(said("10.0.0.9", Endpoint::Ip), format!("{head}$10\r\n10.0.0.9:7\r\n"));
        assert_eq!(said("demo-0", Endpoint::Name), format!("{head}$8\r\ndemo-0:7\r\n"));
        assert_eq!(said("demo-0", Endpoint::Ip), format!("{head}_\r\n"));
        assert_eq!(said("10.0.0.9", Endpoint::Unnamed), format!("{head}_\r\n"));
    }
}
