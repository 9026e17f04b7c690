//! One replica of ours: its sync, the stream, its acknowledgements.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::fresh::{Note, vouch};
use super::{PeerInfo, PeerState, load, lock, random_id, timeout_ms};
use crate::clock;
use crate::journal::Pin;
use crate::resp::{Decoder, Limits};
use crate::server::Shared;
use crate::session::{ClientInfo, Session};
use crate::snapshot::{self, Form, Turn};
use crate::stream::Stream;
use crate::tls::secure::Connection;
use crate::topology::Epoch;

const STREAM_BYTES: usize = 256 * 1024;
/// What a replica may send in one request, bytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// A replica that says nothing for so long is not there, milliseconds: it acknowledges at least every second.
const SILENT_MS: u64 = 3_000;

const WAITING: u8 = 0;
const SNAPSHOT: u8 = 1;
const ONLINE: u8 = 2;

/// A replica as others see it.
pub struct Peer {
    stream: Stream,
    ip: String,
    port: u16,
    client: Arc<ClientInfo>,
    state: AtomicU8,
    member: String,
    boot: String,
    ack: AtomicU64,
    /// What of it is on its disk, as far as it has a log.
    durable_ack: AtomicU64,
    acked: AtomicBool,
    /// When it said something last, of the monotonic clock.
    heard_ms: AtomicU64,
    sent: AtomicU64,
    closed: AtomicBool,
    /// Epoch of the topology that it knows, as it told when it asked how current it is.
    topology: AtomicU64,
    /// It was vouched for.
    is_vouched: AtomicBool,
    /// What is to be told next about how current the stream is, if the replica has asked.
    note: Mutex<Option<Note>>,
    is_noted: AtomicBool,
}

impl Peer {
    /// Where the replica listens, as far as it has told.
    pub fn place(&self) -> (&str, u16) {
        (&self.ip, self.port)
    }

    pub fn is_at(&self, host: &str, port: u16) -> bool {
        self.ip.eq_ignore_ascii_case(host) && self.port == port
    }

    pub fn is_online(&self) -> bool {
        load(&self.state) == ONLINE && !self.closed.load(Ordering::Acquire)
    }

    /// Offset up to which it has everything.
    pub fn ack(&self) -> u64 {
        self.ack.load(Ordering::Acquire)
    }

    pub fn durable_ack(&self) -> u64 {
        self.durable_ack.load(Ordering::Acquire)
    }

    /// Milliseconds since it said something.
    fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_ms.load(Ordering::Relaxed))
    }

    /// It has said something of late: what is cut off or hangs keeps its link for `repl-timeout`.
    pub fn is_heard(&self, now_ms: u64) -> bool {
        self.silent_ms(now_ms) < SILENT_MS
    }

    /// The member's ID; empty for what is not of our kind.
    pub fn member(&self) -> &String {
        &self.member
    }

    /// The member's process.
    pub fn boot(&self) -> &String {
        &self.boot
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    pub fn client(&self) -> &Arc<ClientInfo> {
        &self.client
    }

    fn knows(&self, topology: Epoch) -> bool {
        self.topology.load(Ordering::Acquire) >= topology
    }

    /// It was vouched for on this link, and may not know that topology.
    pub(super) fn is_unaware(&self, topology: Epoch) -> bool {
        let is_closed = self.closed.load(Ordering::Acquire);
        !is_closed && self.is_vouched.load(Ordering::Acquire) && !self.knows(topology)
    }

    pub(crate) fn cut(&self) {
        // It may be gone already. First this: who sees that it is closed has nothing sent to it any more.
        let _ = self.stream.shutdown();
        self.closed.store(true, Ordering::Release);
    }

    pub fn info(&self, now_ms: u64) -> PeerInfo {
        PeerInfo {
            ip: self.ip.clone(),
            port: self.port,
            state: ["wait_bgsave", "send_bulk", "online"][load(&self.state) as usize],
            offset: self.ack(),
            lag_s: (self.silent_ms(now_ms) / 1000) as i64,
        }
    }

    fn set_note(&self, note: Note) {
        *lock(&self.note) = Some(note);
        self.is_noted.store(true, Ordering::Release);
    }

    /// The note, once all of the journal that it speaks of has been sent.
    fn take_note(&self, sent: u64) -> Option<Note> {
        if !self.is_noted.load(Ordering::Acquire) {
            return None;
        }
        let mut note = lock(&self.note);
        let due = note.take_if(|note| note.end <= sent);
        self.is_noted.store(note.is_some(), Ordering::Release);
        due
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.client.kill.load(Ordering::Acquire)
    }
}

/// Serves a replica on a connection that sent PSYNC; `rest` is output that was not written yet.
pub fn serve(shared: Arc<Shared>, stream: Connection, session: Session, rest: Vec<u8>) {
    let client = session.info.clone();
    let with = shared.clone();
    let spawned = std::thread::Builder::new().name("replica".into()).spawn(move || {
        let client = session.info.clone();
        if let Err(e) = run(&with, stream, session, &rest) {
            tracing::info!(replica = client.addr, error = %e, "a replica's link ended");
        }
        with.clients.remove(client.id);
    });
    if let Err(e) = spawned {
        tracing::error!(error = %e, "cannot start a thread for a replica");
        shared.clients.remove(client.id);
    }
}

fn run(
    shared: &Arc<Shared>,
    stream: Connection,
    mut session: Session,
    rest: &[u8],
) -> io::Result<()> {
    let stream = Stream::from_loop(stream)?;
    let timeout = Duration::from_millis(timeout_ms(shared));
    stream.set_write_timeout(Some(timeout))?;
    stream.set_read_timeout(Some(timeout))?;
    let told = std::mem::take(&mut session.replica);
    let ip = if told.ip_address.is_empty() {
        stream.peer_addr().map_or_else(|_| "?".into(), |a| a.ip().to_string())
    } else {
        told.ip_address.clone()
    };
    session.info.is_replica.store(true, Ordering::Relaxed);
    let peer = Arc::new(Peer {
        stream: stream.clone(),
        ip,
        port: told.listening_port,
        client: session.info.clone(),
        state: AtomicU8::new(WAITING),
        member: told.member.clone(),
        boot: told.boot.clone(),
        ack: AtomicU64::new(0),
        durable_ack: AtomicU64::new(0),
        acked: AtomicBool::new(false),
        heard_ms: AtomicU64::new(clock::monotonic_ms()),
        sent: AtomicU64::new(0),
        closed: AtomicBool::new(false),
        topology: AtomicU64::new(0),
        is_vouched: AtomicBool::new(false),
        note: Mutex::default(),
        is_noted: AtomicBool::new(false),
    });
    {
        let mut peers = lock(&shared.replication.peers);
        // A member has one link: what it had said on an earlier one may be no more, if it was restarted meanwhile.
        let is_earlier =
            |other: &&Arc<Peer>| !told.member.is_empty() && other.member == told.member;
        peers.iter().filter(is_earlier).for_each(|other| other.cut());
        peers.push(peer.clone());
    }
    let reads = {
        let (peer, shared, stream) = (peer.clone(), shared.clone(), stream.clone());
        std::thread::Builder::new().name("replica-acks".into()).spawn(move || {
            // Its end is the end of the link, whatever the reason.
            let _ = read_acks(&shared, &peer, stream);
            peer.cut();
        })?
    };
    let mut link = Sync { shared, peer: &peer, stream, told };
    let result = link.stream.write_all(rest).and_then(|()| link.run());
    peer.cut();
    lock(&shared.replication.peers).retain(|p| !Arc::ptr_eq(p, &peer));
    shared.note_acks();
    shared.wake_loops();
    // The thread ends with the socket.
    let _ = reads.join();
    result
}

fn read_acks(shared: &Shared, peer: &Peer, mut stream: Stream) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let limits = Limits { authenticated: true, bulk_bytes_max: REQUEST_BYTES_MAX };
    let (mut buffer, mut chunk) = (Vec::new(), [0u8; 4096]);
    loop {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Ok(());
        }
        peer.heard_ms.store(clock::monotonic_ms(), Ordering::Relaxed);
        buffer.extend_from_slice(&chunk[..n]);
        let mut at = 0;
        while let Some(end) = decoder.next(&buffer, at, limits).map_err(io::Error::other)? {
            let arg = |i: usize| decoder.args.get(i).map_or(&[][..], |(a, b)| &buffer[*a..*b]);
            if arg(0).eq_ignore_ascii_case(b"replconf")
                && arg(1).eq_ignore_ascii_case(b"ack")
                && let Some(offset) = crate::number::parse_i64(arg(2))
            {
                peer.ack.store(offset.max(0) as u64, Ordering::Release);
                if arg(3).eq_ignore_ascii_case(b"fack")
                    && let Some(durable) = crate::number::parse_i64(arg(4))
                {
                    peer.durable_ack.store(durable.max(0) as u64, Ordering::Release);
                }
                peer.acked.store(true, Ordering::Release);
                shared.note_acks();
                shared.wake_loops();
            }
            if arg(0).eq_ignore_ascii_case(b"replconf")
                && arg(1).eq_ignore_ascii_case(b"larder-clock")
                && let Some(clock) = crate::number::parse_i64(arg(2))
            {
                if let Some(known) = crate::number::parse_i64(arg(3)) {
                    peer.topology.store(known.max(0) as u64, Ordering::Release);
                }
                // Who takes slots for ours that have gone is vouched for no more. Said before the slots are looked at: who
                // deletes keys looks at it after they have changed.
                if peer.knows(shared.cluster.owns_less_since()) {
                    peer.is_vouched.store(true, Ordering::Release);
                    if let Some(note) = vouch(shared, clock.max(0) as u64) {
                        peer.set_note(note);
                        shared.journal.wake();
                    }
                }
            }
            at = end;
        }
        buffer.drain(..at);
        decoder.shift_to_request(at);
        if buffer.len() > 2 * REQUEST_BYTES_MAX {
            return Err(io::Error::other("a replica sent a request that is too long"));
        }
    }
}

/// A replica's link under way.
struct Sync<'s> {
    shared: &'s Shared,
    peer: &'s Peer,
    stream: Stream,
    told: PeerState,
}

impl<'s> Sync<'s> {
    fn run(&mut self) -> io::Result<()> {
        let (replid, next) = self.told.wants.clone().unwrap_or_else(|| ("?".into(), -1));
        let stats = &self.shared.stats;
        if let Some(pin) = self.partial(&replid, next) {
            stats.sync_partial_ok.fetch_add(1, Ordering::Relaxed);
            let id = if self.told.capa_psync2 {
                format!(" {}", self.shared.replication.replid())
            } else {
                String::new()
            };
            self.stream.write_all(format!("+CONTINUE{id}\r\n").as_bytes())?;
            // It has what is before the place that it asked for.
            self.peer.ack.fetch_max(pin.offset(), Ordering::AcqRel);
            return self.stream(&pin);
        }
        if replid != "?" {
            stats.sync_partial_err.fetch_add(1, Ordering::Relaxed);
        }
        stats.sync_full.fetch_add(1, Ordering::Relaxed);
        let pin = self.full()?;
        if self.told.rdb_only {
            return Ok(());
        }
        self.stream(&pin)
    }

    /// The place from which on the stream can go on, if all of it is kept.
    fn partial(&self, replid: &str, next: i64) -> Option<Arc<Pin>> {
        let offset = u64::try_from(next).ok()?.checked_sub(1)?;
        let journal = &self.shared.journal;
        if !journal.is_active() {
            return None;
        }
        let common = self.shared.replication.common(replid, journal.end())?;
        if offset > common {
            return None;
        }
        journal.pin(offset, self.limit())
    }

    /// Bytes that a replica may be behind before it is cut off.
    fn limit(&self) -> u64 {
        let text = self.shared.config.get("client-output-buffer-limit").unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        let of = |class: &str| {
            let at = words.iter().position(|w| w.eq_ignore_ascii_case(class))?;
            crate::persist::parse_bytes(words.get(at + 1)?)
        };
        let limit = of("replica").or_else(|| of("slave")).unwrap_or(256 << 20);
        if limit == 0 { u64::MAX } else { limit.max(self.shared.journal.backlog().1) }
    }

    /// Waits for our turn to take a snapshot; the replica sees that we are alive.
    fn turn(&self) -> io::Result<Turn<'s>> {
        let shared = self.shared;
        let mut waited = 0u32;
        loop {
            if let Some(turn) = shared.snapshots.try_turn() {
                return Ok(turn);
            }
            if self.peer.is_closed() {
                return Err(io::Error::other("it is gone"));
            }
            std::thread::sleep(Duration::from_millis(10));
            waited += 1;
            if waited.is_multiple_of(100) {
                (&self.stream).write_all(b"\n")?;
            }
        }
    }

    fn full(&mut self) -> io::Result<Arc<Pin>> {
        let shared = self.shared;
        let limit = self.limit();
        let form = Form { version: self.version(), aof_base: false };
        let mut pin = None;
        let turn = self.turn()?;
        let begun = snapshot::begin(shared, turn, form, |moment| {
            // From this moment on every write is in the journal.
            shared.journal.set_active(true);
            pin = shared.journal.pin(moment.offset, limit);
        });
        let moment = begun.moment.clone();
        let Some(pin) = pin else { return Err(io::Error::other("no place in the journal")) };
        self.peer.state.store(SNAPSHOT, Ordering::Release);
        let mut stream = &self.stream;
        if !self.told.is_sync {
            let line = format!("+FULLRESYNC {} {}\r\n", moment.replid, moment.offset);
            stream.write_all(line.as_bytes())?;
        }
        if self.told.capa_eof {
            let mark = random_id();
            stream.write_all(format!("$EOF:{mark}\r\n").as_bytes())?;
            begun.write(stream, form)?;
            stream.write_all(mark.as_bytes())?;
            // The replica finds the mark at the end of what came: nothing may follow before it has.
            while !self.peer.acked.load(Ordering::Acquire) && !self.told.rdb_only {
                if self.peer.is_closed() {
                    return Err(io::Error::other("it is gone"));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        } else {
            self.by_file(begun, form)?;
        }
        Ok(pin)
    }

    /// A replica that wants to know the length first: the snapshot goes through a temporary file.
    fn by_file(&self, begun: snapshot::Begun<'_>, form: Form) -> io::Result<()> {
        let folder = self.shared.config.get("dir").unwrap_or_else(|| ".".into());
        let name = format!("temp-sync-{}-{}.rdb", std::process::id(), self.peer.client.id);
        let path = std::path::Path::new(&folder).join(name);
        let sent = (|| {
            let mut stream = &self.stream;
            let file = std::fs::File::options().create_new(true).write(true).open(&path)?;
            let mut beats = Beats { file, stream: &self.stream, next_ms: 0 };
            begun.write(&mut beats, form)?;
            drop(beats);
            let mut file = std::fs::File::open(&path)?;
            let len = file.metadata()?.len();
            stream.write_all(format!("${len}\r\n").as_bytes())?;
            io::copy(&mut file, &mut stream).map(|_| ())
        })();
        // It may not be there at all.
        let _ = std::fs::remove_file(&path);
        sent
    }

    /// The version of the snapshot that this replica reads. Redis knows no other form of expiring fields than its own.
    fn version(&self) -> u32 {
        match self.shared.config.int("larder-rdb-version", 0).max(0) as u32 {
            0 if self.told.capa_redis_8 => crate::rdb::VERSION_MAX,
            version => version,
        }
    }

    /// The journal from a place on, for as long as the link holds.
    fn stream(&mut self, pin: &Pin) -> io::Result<()> {
        let peer = self.peer;
        let mut at = pin.offset();
        peer.sent.store(at, Ordering::Release);
        peer.state.store(ONLINE, Ordering::Release);
        self.shared.note_acks();
        self.shared.wake_loops();
        let mut bytes = Vec::new();
        while !peer.is_closed() {
            bytes.clear();
            if !self.shared.journal.read(at, STREAM_BYTES, &mut bytes) {
                return Err(io::Error::other("it was too far behind: cut off"));
            }
            if !bytes.is_empty() {
                self.stream.write_all(&bytes)?;
                at += bytes.len() as u64;
                pin.advance(at);
                peer.sent.store(at, Ordering::Release);
            }
            // Where the journal ended a request has ended, too: here is room for what is no part of it.
            let is_whole = bytes.len() < STREAM_BYTES;
            if is_whole && let Some(note) = peer.take_note(at) {
                self.stream.write_all(&note.request())?;
            } else if bytes.is_empty() {
                let is_noted = || peer.is_noted.load(Ordering::Acquire);
                self.shared.journal.wait_unless(at, Duration::from_secs(1), is_noted);
            }
        }
        Ok(())
    }
}

/// A file that is written while the replica is told now and then that we are alive.
struct Beats<'s> {
    file: std::fs::File,
    stream: &'s Stream,
    next_ms: u64,
}

impl Write for Beats<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = clock::monotonic_ms();
        if now >= self.next_ms {
            self.next_ms = now + 1000;
            self.stream.write_all(b"\n")?;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
