//! MONITOR: who is shown every command, and how a command is written for them.
//!
//! ```text
//! +1339518083.107412 [0 127.0.0.1:60866] "set" "key" "\xff"
//! ```
//!
//! A line is sent once its command has run. What administrators do is not shown, and no password is.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use smallvec::SmallVec;

use crate::clock;
use crate::command::{Command, flag};
use crate::server::Shared;
use crate::session::{ClientInfo, Session};

#[derive(Default)]
pub struct Monitors {
    count: AtomicUsize,
    clients: RwLock<Vec<Arc<ClientInfo>>>,
}

impl Monitors {
    /// Somebody looks at the commands.
    #[inline]
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub fn add(&self, client: &Arc<ClientInfo>) {
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        clients.push(client.clone());
        self.count.store(clients.len(), Ordering::Relaxed);
        client.monitors.store(true, Ordering::Relaxed);
    }

    pub fn remove(&self, client: &ClientInfo) {
        if client.monitors.swap(false, Ordering::Relaxed) {
            let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
            clients.retain(|c| c.id != client.id);
            self.count.store(clients.len(), Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// Shows a command that has run to those who look.
    #[cold]
    pub fn show(&self, session: &Session, command: &Command, args: &[&[u8]]) {
        if is_kept_back(command, args) || self.state.loading.load(Ordering::Acquire) {
            return;
        }
        let line = line(clock::unix_us(), session.db, &session.info.addr, command, args);
        let line: Arc<[u8]> = line.into_bytes().into();
        let clients = self.monitors.clients.read().unwrap_or_else(PoisonError::into_inner);
        clients.iter().for_each(|client| self.deliver(client, line.clone(), None));
    }
}

/// What only administrators do.
fn is_kept_back(command: &Command, args: &[&[u8]]) -> bool {
    const OF_CLIENT: [&[u8]; 6] = [b"kill", b"list", b"pause", b"unpause", b"unblock", b"no-evict"];
    command.is(flag::ADMIN)
        || command.name == "client"
            && args
                .get(1)
                .is_some_and(|word| OF_CLIENT.iter().any(|w| word.eq_ignore_ascii_case(w)))
}

/// Places of the arguments that are secrets.
pub fn secrets(command: &Command, args: &[&[u8]]) -> SmallVec<[usize; 2]> {
    let behind = |word: &[u8], n: usize| {
        let at = args.iter().position(|a| a.eq_ignore_ascii_case(word)).unwrap_or(args.len());
        (at + 1..=at + n).filter(|i| *i < args.len()).collect::<SmallVec<[usize; 2]>>()
    };
    match command.name {
        "auth" => (1..args.len()).collect(),
        "hello" => behind(b"auth", 2),
        "migrate" => {
            let mut found = behind(b"auth", 1);
            found.extend(behind(b"auth2", 2));
            found
        }
        _ => SmallVec::new(),
    }
}

fn line(unix_us: i64, db: u16, addr: &str, command: &Command, args: &[&[u8]]) -> String {
    let (s, us) = (unix_us / 1_000_000, unix_us % 1_000_000);
    let mut line = format!("+{s}.{us:06} [{db} {addr}]");
    let secrets = secrets(command, args);
    for (i, arg) in args.iter().enumerate() {
        line.push(' ');
        quote(&mut line, if secrets.contains(&i) { b"(redacted)" } else { arg });
    }
    line.push_str("\r\n");
    line
}

fn quote(out: &mut String, bytes: &[u8]) {
    out.push('"');
    for byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend(['\\', char::from(*byte)]),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x07 => out.push_str("\\a"),
            0x08 => out.push_str("\\b"),
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::find_canonical;

    #[test]
    fn lines_are_written_as_by_redis_and_without_secrets() {
        let show = |args: &[&[u8]]| {
            let command = find_canonical(args[0]).unwrap();
            line(1_339_518_083_000_412, 3, "127.0.0.1:6", command, args)
        };
        let head = "+1339518083.000412 [3 127.0.0.1:6]";
        for (args, shown) in [
            (
                &[b"sEt".as_slice(), b"a", b"b\x00\"\\\n\t\x07\x08\r \xc3"][..],
                r#""sEt" "a" "b\x00\"\\\n\t\a\b\r \xc3""#,
            ),
            (&[b"AUTH", b"u", b"p"], r#""AUTH" "(redacted)" "(redacted)""#),
            (
                &[b"HELLO", b"3", b"AUTH", b"u", b"p", b"SETNAME", b"n"],
                r#""HELLO" "3" "AUTH" "(redacted)" "(redacted)" "SETNAME" "n""#,
            ),
            (
                &[b"MIGRATE", b"h", b"1", b"k", b"0", b"9", b"auth2", b"u", b"p"],
                r#""MIGRATE" "h" "1" "k" "0" "9" "auth2" "(redacted)" "(redacted)""#,
            ),
            (&[b"HELLO", b"3", b"AUTH"], r#""HELLO" "3" "AUTH""#),
        ] {
            assert_eq!(show(args), format!("{head} {shown}\r\n"));
        }
        let command = find_canonical(b"client").unwrap();
        assert!(is_kept_back(command, &[b"client", b"LIST"]));
        assert!(!is_kept_back(command, &[b"client", b"ID"]));
    }
}
