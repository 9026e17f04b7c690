//! Pieces of which text and meta replies are made.

use super::client::Client;
use super::ops::Seen;

pub(super) fn line(client: &mut Client<'_, '_>, text: &str) {
    client.reply.out.extend_from_slice(text.as_bytes());
    client.reply.out.extend_from_slice(b"\r\n");
}

/// What a RESP client would be told, as a Memcached client can take it.
pub(super) fn refuse(client: &mut Client<'_, '_>, error: &str) {
    line(client, &refusal(error));
}

pub(crate) fn refusal(error: &str) -> String {
    if error.starts_with("OOM ") {
        return "SERVER_ERROR out of memory storing object".into();
    }
    format!("SERVER_ERROR {}", error.replace(['\r', '\n'], " "))
}

pub(super) fn number(out: &mut Vec<u8>, n: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

pub(super) fn value_line(out: &mut Vec<u8>, key: &[u8], seen: &Seen<'_>, cas: bool) {
    out.reserve(key.len() + seen.value.len() + 64);
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    out.push(b' ');
    number(out, seen.item.flags);
    out.push(b' ');
    number(out, seen.value.len());
    if cas {
        out.push(b' ');
        number(out, seen.item.cas);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(seen.value);
    out.extend_from_slice(b"\r\n");
}
