//! One connection, and the bytes that it has read and not run yet.

use std::io;

use crate::memcached::Protocol;
use crate::resp::{Decoder, Values};
use crate::session::Session;
use crate::tls::secure::Connection;

/// Bytes that are read from a connection at a time.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// Room for an argument that is announced and has not come, bytes: a few bytes announce any length.
const AHEAD_OF_INPUT_BYTES_MAX: usize = 16 << 20;
/// Output that makes a connection end its turn, bytes.
pub(super) const TURN_BYTES: usize = 1 << 20;
/// Output that does not wait for that of others, bytes: a few such are as much as a core's cache holds.
const LARGE_BYTES: usize = 32 * 1024;
/// What TURN_BYTES is for a connection that has not authenticated, bytes: it is answered little, and reads it at once.
const TURN_BYTES_UNAUTHENTICATED: usize = 1024;

/// One connection.
pub(super) struct Conn {
    pub(super) stream: Connection,
    pub(super) session: Session,
    pub(super) decoder: Decoder,
    /// A client of Memcached, and where it stands.
    pub(super) memcached: Option<Box<Protocol>>,
    /// Bytes read and not consumed: the rest of an incomplete request, or of a turn that ended.
    pub(super) input: Vec<u8>,
    pub(super) out: Vec<u8>,
    /// Bytes of `out` that have gone out.
    pub(super) sent: usize,
    /// Long values that go out between the bytes of `out`, from where they lie.
    pub(super) values: Values,
    pub(super) dirty: bool,
    pub(super) pending: bool,
    /// The request that it read last waits: see `EventLoop::hold_back`.
    pub(super) is_held: bool,
    /// Waits until its client has read: requests are left where they are meanwhile.
    pub(super) stalled: bool,
    /// Replies wait until the log has the journal up to here; 0: they do not wait.
    pub(super) gate: u64,
    /// The client's last write that `gate` was set for.
    pub(super) seen_write: u64,
    /// The same for a majority of the shard's members, and since when they wait, monotonic milliseconds.
    pub(super) quorum_gate: u64,
    pub(super) quorum_since_ms: u64,
    /// The reign in which requests were executed under the primary's lease since the last flush; 0: none were.
    pub(super) leased: u64,
    /// Bytes that its last read brought.
    pub(super) came: usize,
    pub(super) closing: bool,
    /// The client has closed its side: a read must go on until the end of the stream, since no
    /// further event will tell of it.
    pub(super) read_closed: bool,
}

impl Conn {
    /// Something was executed under the lease of that reign (0: nothing was). The first one of several counts.
    #[inline]
    pub(super) fn note_leased(&mut self, reign: u64) {
        if self.leased == 0 {
            self.leased = reign;
        }
    }

    /// Bytes of output that the stream has not taken.
    #[inline]
    pub(super) fn unsent(&self) -> usize {
        self.out.len() - self.sent + self.values.unsent()
    }

    /// Hands the next of them to the stream, as many as it takes.
    pub(super) fn write(&mut self) -> io::Result<usize> {
        if self.values.is_empty() {
            let n = self.stream.write(&self.out[self.sent..])?;
            self.sent += n;
            return Ok(n);
        }
        let n = self.stream.write_vectored(&self.values.gather(&self.out, self.sent))?;
        self.sent = self.values.advance(self.sent, n);
        Ok(n)
    }

    /// More output waits for the client to read it than it may leave unread and still be served.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.unsent() > self.turn_bytes()
    }

    /// So much is to go out, and waits for nothing, that it is not kept until the end of the loop's turn.
    #[inline]
    pub(super) fn is_large(&self) -> bool {
        self.unsent() >= LARGE_BYTES && self.gate == 0 && self.quorum_gate == 0
    }

    /// Something is still to go out.
    #[inline]
    pub(super) fn has_output(&self) -> bool {
        self.unsent() > 0 || self.stream.has_unsent()
    }

    #[inline]
    pub(super) fn turn_bytes(&self) -> usize {
        if self.session.authenticated { TURN_BYTES } else { TURN_BYTES_UNAUTHENTICATED }
    }
}

/// Keeps the bytes behind the consumed ones.
pub(super) fn keep(conn: &mut Conn, mut input: Vec<u8>, used: usize) {
    if used == input.len() {
        // Nothing left: the buffer is given back, so that an idle connection holds none.
        conn.input = Vec::new();
        return;
    }
    if used > 0 {
        input.drain(..used);
        conn.decoder.shift_to_request(used);
    }
    conn.input = input;
}

/// Reads behind the bytes that are there already, as much as the argument under way needs.
pub(super) fn read_more(conn: &mut Conn, limit: usize) -> io::Result<usize> {
    let have = conn.input.len();
    if have > limit {
        return Err(io::Error::other("the query buffer limit is reached"));
    }
    conn.input.reserve(missing(conn, have).clamp(READ_BYTES, AHEAD_OF_INPUT_BYTES_MAX));
    conn.stream.read_behind(&mut conn.input)
}

/// Keeps the first bytes of a request, with room for all of an argument that is known to be a long one.
pub(super) fn begin_input(conn: &mut Conn, bytes: &[u8]) {
    let missing = missing(conn, bytes.len()).min(AHEAD_OF_INPUT_BYTES_MAX);
    if bytes.len() + missing > READ_BYTES {
        // The last read of it wants as much room as any: it is not moved for that.
        conn.input.reserve_exact(bytes.len() + missing + READ_BYTES);
    }
    conn.input.extend_from_slice(bytes);
}

/// Bytes that the argument under way needs beside the `have` that are there; 0 when not known.
fn missing(conn: &Conn, have: usize) -> usize {
    let need = conn.memcached.as_ref().map_or_else(|| conn.decoder.need(), |m| m.need());
    need.saturating_sub(have)
}

/// Reads and forgets what a client sends after its connection was condemned.
pub(super) fn drain_closed(conn: &mut Conn, buffer: &mut [u8]) -> bool {
    loop {
        match conn.stream.read(buffer) {
            Ok(0) => return conn.has_output(),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}
