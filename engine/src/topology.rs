//! The words that the engine, the council and the operator share: slots, members, shards, topology, lineage.
//!
//! A `Topology` is the state machine of the council: it is a value, it only changes by applying a
//! committed `Change`, and `epoch` grows with every change. Nothing here knows sockets, disks or clocks.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Number of hash slots, as in Redis Cluster.
pub const SLOTS: u16 = 16384;
/// Version of the serialised forms in this file; a reader refuses a higher one.
pub const FORMAT: u16 = 1;

/// Stable identity of a member: 40 lower-case hex digits, made at first start and kept on its disk.
/// It is also the node ID that cluster clients see.
pub type MemberId = String;
/// Index of a shard, from 0.
pub type ShardId = u16;
/// Version of the topology. A shard's `epoch` is the topology's epoch at which its primary was set.
pub type Epoch = u64;

/// Slots `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotRange {
    pub first: u16,
    pub last: u16,
}

/// One member as the council knows it. The host is a DNS name; an IP is only a hint and is never kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: MemberId,
    /// Deterministic name, e.g. `demo-0-1` (cluster, shard, index): a pod's name or a local process's.
    pub name: String,
    pub host: String,
    /// Port of the client protocol; 0: only by TLS.
    pub port: u16,
    /// The same by TLS; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tls_port: u16,
    /// Port of the bus (mutual TLS): council, reports, wishes.
    pub bus_port: u16,
    /// `None` for a witness: it votes and holds no data.
    pub shard: Option<ShardId>,
    #[serde(default)]
    pub node: Option<String>,
    #[serde(default)]
    pub zone: Option<String>,
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

impl Member {
    /// Where clients reach it: by TLS if that is wanted and served, or if nothing else is.
    pub fn client_address(&self, by_tls: bool) -> String {
        format!("{}:{}", self.host, self.client_port(by_tls))
    }

    /// The port of that.
    pub fn client_port(&self, by_tls: bool) -> u16 {
        if self.tls_port != 0 && (by_tls || self.port == 0) { self.tls_port } else { self.port }
    }
}

/// One shard: who is its primary, since which epoch, and which slots it owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    pub primary: Option<MemberId>,
    pub epoch: Epoch,
    pub slots: Vec<SlotRange>,
    /// Boot of the primary that `epoch` was given to: a restarted process never acts under it.
    #[serde(default)]
    pub boot: String,
    /// Members (and their boots) whose data is known to be at most the asynchronous tail behind the
    /// primary's: while one of them may come back, nobody else is promoted over it.
    #[serde(default)]
    pub in_sync: BTreeMap<MemberId, String>,
    /// Lineage of the primary when it was promoted: a data set below it is an older one.
    #[serde(default)]
    pub floor: Option<Lineage>,
    /// Where a majority acknowledges: the members whose majority has each acknowledged write, those among them that
    /// are gone by now, too. Empty: its members. see: `crate::quorum::electors`
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub electors: BTreeSet<MemberId>,
    /// Members that leave once they are no electors any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub retiring: BTreeSet<MemberId>,
}

impl Shard {
    /// This process of the member may be promoted: it has what was acknowledged, but for the asynchronous tail.
    pub fn is_in_sync(&self, member: &str, boot: &str) -> bool {
        self.in_sync.get(member).is_some_and(|of_set| of_set == boot)
    }

    /// The same, and where a majority acknowledges it is one of those that count.
    pub fn counts_on(&self, member: &str, boot: &str) -> bool {
        let is_elector = self.electors.is_empty() || self.electors.contains(member);
        is_elector && self.is_in_sync(member, boot)
    }
}

impl Change {
    /// The wish for a handover of the shard, as it is at that epoch. `to` empty: to whom the council finds best.
    pub fn handover(shard: ShardId, to: MemberId, expected: Epoch) -> Change {
        let (window_ms, boot, lineage) = (0, String::new(), None);
        Change::Promote { shard, to, expected, window_ms, boot, lineage, by_majority: false }
    }
}

/// Slots on their way from one shard to another. The source serves them until all at once the target does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The topology's epoch at which the move began.
    pub id: Epoch,
    pub slots: Vec<SlotRange>,
    pub from: ShardId,
    pub to: ShardId,
}

/// What one failover cost, kept for status and events (the last 32).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    pub shard: ShardId,
    pub epoch: Epoch,
    pub from: Option<MemberId>,
    pub to: MemberId,
    /// Upper bound of acknowledged bytes of the journal that the new primary did not have;
    /// `None` while the old primary has not come back to tell.
    pub dropped_writes: Option<u64>,
    /// Width of the window in which writes may have been lost, milliseconds.
    pub window_ms: u64,
}

/// The council's state: members, shards, voters. Changes only by committed `Change`s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    pub format: u16,
    /// Random ID made at formation; a member that has joined one cluster never joins another.
    pub cluster: String,
    /// Grows when a pure cache whose members all vanished is formed anew, and when survivors go on without the
    /// majority of their council.
    pub incarnation: u64,
    /// The incarnation from which on data sets are of this cluster, where survivors went on with theirs; 0: this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub data_since: u64,
    pub epoch: Epoch,
    pub members: BTreeMap<MemberId, Member>,
    pub shards: BTreeMap<ShardId, Shard>,
    pub voters: BTreeSet<MemberId>,
    #[serde(default)]
    pub failovers: Vec<Failover>,
    /// Moves under way, the oldest first; no slot is in two of them.
    #[serde(default)]
    pub moves: Vec<Move>,
    /// Epoch of the last `Bar`; 0: none was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub barred: Epoch,
    /// What only clusters without an operator have.
    #[serde(default, skip_serializing_if = "Unmanaged::is_empty")]
    pub unmanaged: Box<Unmanaged>,
}

/// The part of a topology that the members' own users write, by CLUSTER: nothing where an operator does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmanaged {
    /// The failure timeout of all members, milliseconds: that of the one that the others joined. Leases are only
    /// safe where all count with the same one. 0: each has it from its own settings.
    #[serde(default)]
    pub failure_timeout_ms: u64,
    /// Shards that were ever made: a number is never given twice, so that no old data set fits a new shard.
    #[serde(default)]
    pub shards_made: ShardId,
    /// SETSLOT MIGRATING: slots that their owner gives away key by key, and to which shard.
    #[serde(default)]
    pub migrating: BTreeMap<u16, ShardId>,
    /// SETSLOT IMPORTING: slots that a shard takes in key by key.
    #[serde(default)]
    pub importing: BTreeMap<u16, Import>,
    /// Members that were forgotten last: to forget them again is no mistake.
    #[serde(default)]
    pub forgotten: Vec<MemberId>,
}

/// A slot on its way into a shard that does not own it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    pub into: ShardId,
    pub from: ShardId,
}

impl Unmanaged {
    fn is_empty(&self) -> bool {
        *self == Unmanaged::default()
    }
}

/// Where a data set comes from. Ordered: a higher (epoch, offset) within one cluster and shard wins;
/// a data set with no lineage (empty since boot) never wins against one that has one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    pub cluster: String,
    pub incarnation: u64,
    pub shard: ShardId,
    /// Shard epoch of the primary under which the last applied write was made.
    pub epoch: Epoch,
    /// Replication ID, 40 hex digits.
    pub replid: String,
    /// Journal offset, bytes.
    pub offset: u64,
}

/// How far the source of a move has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveProgress {
    /// The move, as in `Topology::moves`.
    pub id: Epoch,
    pub keys: u64,
    pub keys_total: u64,
    pub bytes: u64,
    /// With those that are left, of which the size is guessed; `None`: nothing was sent yet.
    pub bytes_total: Option<u64>,
    /// Milliseconds until the rest is sent, at the rate so far.
    pub eta_ms: Option<u64>,
    /// Bytes per second that it is held to for the sake of clients.
    pub limit: Option<u64>,
}

/// What a member says of itself, to the council's leader (each heartbeat) and to the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub id: MemberId,
    pub name: String,
    /// Random per process start: a changed boot means that memory was lost.
    pub boot: String,
    pub version: String,
    /// `None`: empty since boot, nothing loaded and nothing synced.
    pub lineage: Option<Lineage>,
    pub role: Role,
    pub loading: bool,
    /// The replica's link to its primary is up and it has finished its full sync.
    pub in_sync: bool,
    /// When the snapshot file was taken that its data set began with, unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_s: Option<i64>,
    /// Set when the member cannot write its disk (failed fsync, disk full).
    pub disk_error: Option<String>,
    pub used_memory: u64,
    pub maxmemory: u64,
    pub keys: u64,
    /// Hash of the configuration in force, as the operator wrote it.
    pub config_hash: String,
    /// Directives that the engine refused, with its own message.
    pub config_error: Option<String>,
    /// Writes that this member had acknowledged as primary and dropped when it stepped down.
    pub dropped_writes: u64,
    /// Shard epoch under which those writes were dropped.
    pub dropped_epoch: Epoch,
    /// It is a primary that acknowledges nothing: the council has not prolonged its lease.
    #[serde(default, skip_serializing_if = "is_no")]
    pub lease_is_over: bool,
    /// As primary of this shard epoch it executes nothing more, for a handover: its lineage is final. 0: none.
    #[serde(default)]
    pub held_epoch: Epoch,
    /// It acknowledges by majority: nobody is ever appointed who may lack what a majority has.
    #[serde(default)]
    pub quorum: bool,
    /// Members of an in-sync set without which its primary acknowledges nothing (see `crate::quorum::set`); 0: it
    /// acknowledges otherwise.
    #[serde(default)]
    pub min_in_sync: u16,
    /// It is about to end, and is appointed only where nobody else can be.
    #[serde(default)]
    pub leaving: bool,
    /// Requests of clients since it started, or since CONFIG RESETSTAT.
    #[serde(default)]
    pub requests: u64,
    /// Those of them that it refused for a reason of its own. see: `crate::command::exec::FAULTS`
    #[serde(default)]
    pub faults: u64,
    /// The moves of slots that it gives away, and how far they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<MoveProgress>,
}

fn is_no(value: &bool) -> bool {
    !value
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    #[default]
    None,
    Primary,
    Replica,
    Witness,
}

/// A change of the topology: what is put into the council's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Adds a member, or updates the address, node and zone of a known one.
    Join(Member),
    /// The same by whoever saw the topology at epoch `seen`, and laid claim to the member's disk after that. Refused where disks
    /// were barred since: somebody may be about to delete it who saw it before the claim.
    Enter { member: Member, seen: Epoch },
    /// Before the disk of that name is deleted: refused while a member has the name, and whoever looked at the topology before
    /// does not let one in any more.
    Bar { name: String },
    /// Takes a member out; refused while it is the primary of a shard that owns slots.
    Leave { member: MemberId },
    /// Gives slots that nobody owns to a shard, creating the shard when it is new.
    Assign { shard: ShardId, slots: Vec<SlotRange> },
    /// Begins to move slots that `from` owns to `to`, which has members.
    Move { slots: Vec<SlotRange>, from: ShardId, to: ShardId },
    /// The target has all there is in the slots: it owns them from here on. Void when either shard has got
    /// another primary meanwhile: what the target has may then not be all.
    Moved { id: Epoch, from_epoch: Epoch, to_epoch: Epoch },
    /// The source keeps the slots.
    CancelMove { id: Epoch },
    /// Makes `to` the primary of `shard`; applied only while the shard's epoch is still `expected`.
    /// As a wish it is a handover: the council stops the old primary first, and `to` must have all of
    /// its writes. An empty `to` leaves the choice to the council.
    Promote {
        shard: ShardId,
        to: MemberId,
        expected: Epoch,
        /// 0: a handover, in which nothing could be lost.
        window_ms: u64,
        /// Boot and lineage that the choice was made by.
        #[serde(default)]
        boot: String,
        #[serde(default)]
        lineage: Option<Lineage>,
        /// It acknowledges by majority.
        #[serde(default)]
        by_majority: bool,
    },
    /// Who is in sync with the primary of that epoch; the council's own finding.
    Synced { shard: ShardId, epoch: Epoch, in_sync: BTreeMap<MemberId, String> },
    /// A process joins the in-sync set that its primary of that epoch keeps. see: `crate::quorum::set`
    JoinSync { shard: ShardId, epoch: Epoch, member: MemberId, boot: String },
    /// Whose majority acknowledges from here on, by the word of the primary of that epoch. see: `crate::quorum::electors`
    Electors { shard: ShardId, epoch: Epoch, electors: BTreeSet<MemberId> },
    /// Who is about to leave the shard; the council's own finding.
    Retiring { shard: ShardId, members: BTreeSet<MemberId> },
    /// The set of voters after the library's own configuration change went through.
    Voters { voters: BTreeSet<MemberId> },
    /// What a returning primary counted.
    Dropped { shard: ShardId, epoch: Epoch, writes: u64 },
    /// A change that only clusters without an operator know.
    Own(OwnChange),
}

/// What the users of an unmanaged cluster ask for, by CLUSTER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnChange {
    /// Takes in a member that was alone, as the primary of a new shard, with its data and those of its slots that
    /// nobody owns here. `failure_timeout_ms` counts where it is the second member: the first one's.
    Admit { member: Member, boot: String, slots: Vec<SlotRange>, failure_timeout_ms: u64 },
    /// The member, which leads nobody that owns slots, becomes a replica in another shard.
    Replicate { member: MemberId, shard: ShardId },
    /// The shard owns these slots no more, and nobody does.
    Release { shard: ShardId, slots: Vec<SlotRange> },
    /// The slot's owner gives it away key by key (`None`: no longer).
    Migrating { slot: u16, from: ShardId, to: Option<ShardId> },
    /// A shard takes the slot in key by key (`None`: no longer).
    Importing { slot: u16, into: ShardId, from: Option<ShardId> },
    /// Ends that: the shard owns the slot.
    Take { slot: u16, shard: ShardId },
    /// Takes a member out that has gone, with the slots that it alone served.
    Forget { member: MemberId },
    /// Raises the epoch, if it is lower.
    Raise { epoch: Epoch },
}

/// Slot of a key: CRC16/XMODEM of the key, or of its hash tag when it has a non-empty one.
#[inline]
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) & (SLOTS - 1)
}

/// The part of a key that is hashed: between the first `{` and the next `}` when that is not empty.
#[inline]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    if has_brace(key) { tagged(key) } else { key }
}

fn tagged(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let rest = &key[open + 1..];
    match memchr::memchr(b'}', rest) {
        Some(close) if close > 0 => &rest[..close],
        _ => key,
    }
}

/// There is a `{` in the key. Keys are short: eight bytes a step as one word cost less than a search.
#[inline]
fn has_brace(key: &[u8]) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = key.as_chunks::<8>();
    // A byte of `x` is zero where the key has a `{`; subtracting one borrows into its high bit.
    words.iter().any(|word| {
        let x = u64::from_le_bytes(*word) ^ (LOW * b'{' as u64);
        x.wrapping_sub(LOW) & !x & (LOW << 7) != 0
    }) || rest.contains(&b'{')
}

/// CRC16/XMODEM, eight bytes a step: table `k` advances a byte over `k` further zero bytes.
#[inline]
pub fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let mut chunks = bytes.chunks_exact(8);
    for c in &mut chunks {
        crc = CRC16[7][(c[0] ^ (crc >> 8) as u8) as usize]
            ^ CRC16[6][(c[1] ^ crc as u8) as usize]
            ^ CRC16[5][c[2] as usize]
            ^ CRC16[4][c[3] as usize]
            ^ CRC16[3][c[4] as usize]
            ^ CRC16[2][c[5] as usize]
            ^ CRC16[1][c[6] as usize]
            ^ CRC16[0][c[7] as usize];
    }
    for &b in chunks.remainder() {
        crc = (crc << 8) ^ CRC16[0][((crc >> 8) as u8 ^ b) as usize];
    }
    crc
}

static CRC16: [[u16; 256]; 8] = crc16_tables();

const fn crc16_tables() -> [[u16; 256]; 8] {
    let mut t = [[0u16; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        t[0][i] = crc;
        i += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut i = 0;
        while i < 256 {
            let prev = t[k - 1][i];
            t[k][i] = (prev << 8) ^ t[0][(prev >> 8) as usize];
            i += 1;
        }
        k += 1;
    }
    t
}

/// `5`, or `0-99`.
impl std::fmt::Display for SlotRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// `0-99,200`.
pub fn slots_text(slots: &[SlotRange]) -> String {
    slots.iter().map(SlotRange::to_string).collect::<Vec<_>>().join(",")
}

impl SlotRange {
    pub fn len(&self) -> u16 {
        self.last - self.first + 1
    }
    pub fn is_empty(&self) -> bool {
        false
    }
    pub fn contains(&self, slot: u16) -> bool {
        self.first <= slot && slot <= self.last
    }
}

/// The slots of shard `index` of `count`, as `redis-cli --cluster create` deals them:
/// three shards own 0-5460, 5461-10922 and 10923-16383.
pub fn even_slots(index: u16, count: u16) -> SlotRange {
    let cut = |i: u16| (f64::from(SLOTS) / f64::from(count) * f64::from(i)).round() as u16;
    SlotRange { first: cut(index), last: cut(index + 1) - 1 }
}

impl Lineage {
    /// What two lineages of one cluster and shard are compared by.
    pub fn rank(&self) -> (u64, Epoch, u64) {
        (self.incarnation, self.epoch, self.offset)
    }
}

impl Topology {
    pub fn shard_of_slot(&self, slot: u16) -> Option<ShardId> {
        self.shards
            .iter()
            .find(|(_, s)| s.slots.iter().any(|r| r.contains(slot)))
            .map(|(id, _)| *id)
    }

    pub fn owner_of(&self, range: &SlotRange) -> Option<ShardId> {
        let owns =
            |s: &Shard| s.slots.iter().any(|r| r.contains(range.first) && r.contains(range.last));
        self.shards.iter().find(|(_, s)| owns(s)).map(|(id, _)| *id)
    }

    /// Whose majority has what is acknowledged in the shard.
    pub fn electors_of(&self, shard: ShardId) -> Cow<'_, BTreeSet<MemberId>> {
        match self.shards.get(&shard) {
            Some(s) if !s.electors.is_empty() => Cow::Borrowed(&s.electors),
            _ => Cow::Owned(self.members_of(shard).into_iter().map(|m| m.id.clone()).collect()),
        }
    }

    pub fn move_of(&self, id: Epoch) -> Option<&Move> {
        self.moves.iter().find(|m| m.id == id)
    }

    /// Members of a shard in the order of their names.
    pub fn members_of(&self, shard: ShardId) -> Vec<&Member> {
        let mut found: Vec<_> = self.members.values().filter(|m| m.shard == Some(shard)).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// The same for all shards that have members.
    pub fn members_by_shard(&self) -> BTreeMap<ShardId, Vec<&Member>> {
        let mut found: BTreeMap<ShardId, Vec<&Member>> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(shard) = member.shard {
                found.entry(shard).or_default().push(member);
            }
        }
        found.values_mut().for_each(|members| members.sort_by(|a, b| a.name.cmp(&b.name)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_is_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
        for len in 0..40usize {
            let bytes: Vec<u8> = (0..len as u8).map(|b| b.wrapping_mul(37)).collect();
            let slow = bytes
                .iter()
                .fold(0u16, |crc, b| (crc << 8) ^ CRC16[0][((crc >> 8) as u8 ^ b) as usize]);
            assert_eq!(crc16(&bytes), slow, "length {len}");
        }
    }

    #[test]
    fn known_keys_are_in_their_slots() {
        assert_eq!(slot_of(b"user:123"), 12893);
        assert_eq!(slot_of(b"{user:123}:profile"), 12893);
        assert_eq!(slot_of(b"foo{}{bar}"), slot_of(b"foo{}{bar}"));
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}"), b"{bar");
        // Wherever the brace stands, among bytes that differ from it in one bit or by one.
        for at in 0..24 {
            let mut key = *b"\x7a\x7c\x7d\xfb\x7a\x7c\x7d\xfb\x7a\x7c\x7d\xfb\x7a\x7c\x7d\xfb\x7a\x7c\x7d\xfb\x7a\x7c\x7d\xfb\x7a\x7c";
            assert_eq!(hash_tag(&key), key);
            (key[at], key[at + 1], key[at + 2]) = (b'{', b'x', b'}');
            assert_eq!(hash_tag(&key), b"x", "at {at}");
        }
    }

    #[test]
    fn three_shards_have_the_classic_ranges() {
        assert_eq!(even_slots(0, 3), SlotRange { first: 0, last: 5460 });
        assert_eq!(even_slots(1, 3), SlotRange { first: 5461, last: 10922 });
        assert_eq!(even_slots(2, 3), SlotRange { first: 10923, last: 16383 });
        for count in 1..100 {
            let total: u32 = (0..count).map(|i| u32::from(even_slots(i, count).len())).sum();
            assert_eq!(total, u32::from(SLOTS));
        }
    }
}
