//! Requests of Memcached clients for keys of other members: as they are, in one of RESP.
//!
//! ```text
//!   get a  -->  LARDER.MEMCACHED a user "get a"  -->  the owner runs it as its own port would
//!                                                <--  what that would have answered, as a bulk string
//! ```
//!
//! What the owner gives is the client's as it is, except that the END behind one of several keys is left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Job, Pin, hand_over, waiter};
use crate::command::find;
use crate::memcached::{answer, binary, forwarded};
use crate::resp::encode_request;
use crate::server::Shared;
use crate::session::Session;
use crate::topology::slot_of;

/// How the client reads the reply.
#[derive(Clone, Debug)]
pub enum Form {
    /// It reads none.
    Silent,
    Text,
    /// One of the keys of a `get`, and not the last one: set when an error ends the answer in place of END.
    Piece(Arc<AtomicBool>),
    /// A packet with this opcode and this opaque.
    Binary(u8, u32),
}

impl Form {
    /// What the client is sent for the owner's reply.
    pub(super) fn answer(&self, reply: &[u8]) -> Vec<u8> {
        let Some(said) = bulk(reply) else {
            let error = reply.strip_prefix(b"-").unwrap_or(b"ERR the member's reply is none");
            let error = String::from_utf8_lossy(error);
            return self.refusal(error.trim_end());
        };
        match self {
            Self::Silent => Vec::new(),
            Self::Text | Self::Binary(..) => said.to_vec(),
            Self::Piece(is_cut) => {
                let is_value = said.starts_with(b"VALUE ") || said == b"END\r\n";
                is_cut.store(!is_value, Ordering::Release);
                match said.strip_suffix(b"END\r\n") {
                    Some(value) if is_value => value.to_vec(),
                    _ => said.to_vec(),
                }
            }
        }
    }

    /// What the client is sent for an error of RESP.
    pub fn refusal(&self, error: &str) -> Vec<u8> {
        let error = error.strip_prefix("ERR ").unwrap_or(error);
        match self {
            Self::Silent => return Vec::new(),
            Self::Binary(opcode, opaque) => return binary::refusal(*opcode, *opaque, error),
            Self::Piece(is_cut) => is_cut.store(true, Ordering::Release),
            Self::Text => {}
        }
        format!("{}\r\n", answer::refusal(error)).into_bytes()
    }
}

/// What a bulk string holds.
fn bulk(reply: &[u8]) -> Option<&[u8]> {
    let reply = reply.strip_prefix(b"$")?;
    let end = memchr::memchr(b'\n', reply)?;
    reply.get(end + 1..)?.strip_suffix(b"\r\n")
}

/// Has the client wait, and its thread put this request to whoever has the key.
pub fn put(
    shared: &Shared,
    session: &mut Session,
    key: &[u8],
    request: &[u8],
    only_reads: bool,
    form: Form,
) -> Result<(), String> {
    let command = find(forwarded::NAME.as_bytes()).ok_or("ERR no such request at this member")?;
    let user = session.info.names().user;
    let mut bytes = Vec::with_capacity(request.len() + key.len() + user.len() + 64);
    encode_request(&mut bytes, &[forwarded::NAME.as_bytes(), key, user.as_bytes(), request]);
    let job = Job {
        waiter: waiter(session, command),
        request: bytes,
        replies: 1,
        slot: Some(slot_of(key)),
        only_reads,
        pin: Pin::Stays,
        is_silent: false,
        user: None,
        resp3: false,
        form: Some(form),
    };
    hand_over(shared, session, job)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owners_bytes_are_the_clients_and_errors_are_in_its_protocol() {
        let piece = || Form::Piece(Arc::default());
        let value = b"$21\r\nVALUE a 0 1\r\nx\r\nEND\r\n\r\n";
        for (form, reply, expected) in [
            (Form::Text, &b"$8\r\nSTORED\r\n\r\n"[..], &b"STORED\r\n"[..]),
            (Form::Text, b"$0\r\n\r\n", b""),
            (Form::Silent, b"$8\r\nSTORED\r\n\r\n", b""),
            (Form::Silent, b"-CLUSTERDOWN x\r\n", b""),
            (Form::Text, value, b"VALUE a 0 1\r\nx\r\nEND\r\n"),
            (piece(), value, b"VALUE a 0 1\r\nx\r\n"),
            (piece(), b"$5\r\nEND\r\n\r\n", b""),
            (piece(), b"$16\r\nSERVER_ERROR x\r\n\r\n", b"SERVER_ERROR x\r\n"),
            (Form::Text, b"-ERR whether\r\n", b"SERVER_ERROR whether\r\n"),
            (Form::Text, b"-CLUSTERDOWN x\r\n", b"SERVER_ERROR CLUSTERDOWN x\r\n"),
        ] {
            let said = form.answer(reply);
            assert_eq!(said, expected, "{form:?}: {}", reply.escape_ascii());
            if let Form::Piece(is_cut) = form {
                assert_eq!(is_cut.load(Ordering::Acquire), said.starts_with(b"SERVER_ERROR"));
            }
        }
        let packet = Form::Binary(1, 7).answer(b"-CLUSTERDOWN x\r\n");
        assert_eq!((packet[0], packet[1], packet[7], packet[15]), (0x81, 1, 0x84, 7));
        assert!(packet.ends_with(b"CLUSTERDOWN x"));
    }
}
