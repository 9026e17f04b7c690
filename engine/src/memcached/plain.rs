//! Requests of one line of the text protocol that need nothing behind it.

use super::answer::{line, refuse};
use super::client::Client;
use super::ops::{Count1, Counted, Delete, Deleted, Expire, Refusal};
use super::run::Step;
use super::stats;
use super::text::Request;
use super::{VERSION, rows};
use crate::managed;
use crate::resp::Reply;

/// Requests of one line that need nothing behind it.
pub(super) fn run(
    client: &mut Client<'_, '_>,
    request: Request<'_>,
    end: usize,
) -> Result<Step, Refusal> {
    let (text, noreply) = match request {
        Request::Count { key, down, delta, noreply } => {
            let (initial, cas, new_cas, expire, want_cas) = (None, None, None, None, false);
            let count = Count1 { key, down, delta, initial, cas, new_cas, expire, want_cas };
            let text = match client.add(&count)? {
                Counted::Number { value, .. } => value.to_string(),
                Counted::NotFound => "NOT_FOUND".into(),
                Counted::NotANumber => NOT_A_NUMBER.into(),
                Counted::Exists => "EXISTS".into(),
            };
            (text, noreply)
        }
        Request::Touch { key, exptime, noreply } => {
            let expire = Expire::of(exptime, client.now_ms());
            let found = client.touch(key, expire)?;
            (if found { "TOUCHED" } else { "NOT_FOUND" }.into(), noreply)
        }
        Request::Delete { key, noreply } => {
            let done = client.delete(key, Delete::default())?;
            let deleted = done == Deleted::Deleted;
            (if deleted { "DELETED" } else { "NOT_FOUND" }.into(), noreply)
        }
        Request::FlushAll { delay, noreply } => {
            if !client.executor.shared.config.is_yes("memcached-flush") {
                (String::from("CLIENT_ERROR flush_all not allowed"), noreply)
            } else {
                client.flush(delay)?;
                ("OK".into(), noreply)
            }
        }
        Request::Version => (format!("VERSION {VERSION}"), false),
        Request::Verbosity { noreply } => ("OK".into(), noreply),
        Request::Stats(words) => {
            stats_text(client, &words);
            return Ok(Step::Done(end));
        }
        Request::Watch => {
            ("ERROR watch is not supported: see INFO, SLOWLOG and the metrics".into(), false)
        }
        Request::RefreshCerts => (refresh_certs(client), false),
        Request::Shutdown { graceful } => return Ok(shut_down(client, graceful, end)),
        Request::Quit => return Ok(Step::Close(end)),
        Request::Get(_)
        | Request::Store(_)
        | Request::Meta(_)
        | Request::Crawl { .. }
        | Request::Say { .. } => {
            return Ok(Step::Done(end));
        }
    };
    if !noreply {
        line(client, &text);
    }
    Ok(Step::Done(end))
}

pub(super) const NOT_A_NUMBER: &str =
    "CLIENT_ERROR cannot increment or decrement non-numeric value";

fn stats_text(client: &mut Client<'_, '_>, words: &[&[u8]]) {
    let shared = client.executor.shared;
    match words {
        [b"reset"] => {
            shared.memcached.reset();
            line(client, "RESET");
        }
        // Nothing is counted by prefix: switching that on or off changes nothing, and there is nothing to dump.
        [b"detail", b"off"] => line(client, "OK"),
        [b"detail", b"on"] => line(client, "SERVER_ERROR counting by prefix is not supported"),
        [b"detail", b"dump"] | [b"cachedump", _, _, ..] => line(client, "END"),
        [b"detail", ..] => line(client, "CLIENT_ERROR usage: stats detail on|off|dump"),
        [b"cachedump", ..] => line(client, "CLIENT_ERROR bad command line"),
        _ => match stats::group(shared, words, client.now_ms()) {
            Some(lines) => stats::write_text(&mut client.reply.out, &lines),
            None => line(client, "ERROR"),
        },
    }
}

fn refresh_certs(client: &Client<'_, '_>) -> String {
    let shared = client.executor.shared;
    if shared.tls.accepting().is_none() {
        return "Error TLS not enabled".into();
    }
    match shared.tls.reload(&shared.config) {
        Ok(()) => "OK".into(),
        Err(_) => "Error loading the certificates: see the log".into(),
    }
}

fn shut_down(client: &mut Client<'_, '_>, graceful: bool, end: usize) -> Step {
    let shared = client.executor.shared;
    if !shared.config.is_yes("memcached-shutdown") {
        line(client, "ERROR: shutdown not enabled");
        return Step::Done(end);
    }
    if graceful {
        managed::leave(shared);
    }
    let mut reply = Reply::new(Vec::new(), false);
    client.executor.run(client.session, &mut reply, Some(rows().shutdown), &[b"SHUTDOWN"], None);
    match reply.out.strip_prefix(b"-") {
        Some(error) => {
            refuse(client, &String::from_utf8_lossy(error.trim_ascii_end()));
            Step::Done(end)
        }
        None => Step::Close(end),
    }
}
