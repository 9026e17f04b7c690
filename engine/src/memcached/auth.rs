//! Who may speak Memcached: the users of a file, and the password that RESP clients give.

use std::io;

use subtle::{Choice, ConstantTimeEq};

use super::answer::line;
use super::client::Client;
use super::run::Step;
use super::stats::Count;
use super::text::{self, Request};
use crate::server::Shared;
use crate::session::Session;

/// Largest file of users, bytes, and most users in it.
const FILE_BYTES_MAX: u64 = 1 << 20;
const USERS_MAX: usize = 4096;
/// Longest `name password` of the text protocol, bytes.
const TOKEN_BYTES_MAX: usize = 1024;

const UNAUTHENTICATED: &str = "CLIENT_ERROR unauthenticated";
const BAD_TOKEN: &str = "CLIENT_ERROR bad authentication token format";

/// Names and passwords, one a line as `name:password`; as memcached's `-Y` takes them.
#[derive(Default)]
pub struct Users(Vec<(Vec<u8>, Vec<u8>)>);

impl Users {
    pub fn read(path: &str) -> io::Result<Users> {
        let too_large =
            || io::Error::other(format!("{path} is larger than a file of users may be"));
        if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
            return Err(too_large());
        }
        let users = Users::parse(&std::fs::read(path)?);
        match users.0.len() {
            0 => Err(io::Error::other(format!("{path} holds no user: lines are name:password"))),
            n if n > USERS_MAX => Err(too_large()),
            _ => Ok(users),
        }
    }

    fn parse(text: &[u8]) -> Users {
        let lines = text.split(|b| *b == b'\n').map(|line| line.trim_ascii_end());
        let pair = |line: &[u8]| {
            let at = line.iter().position(|b| *b == b':')?;
            let (name, password) = (&line[..at], &line[at + 1..]);
            (!name.is_empty() && !password.is_empty()).then(|| (name.to_vec(), password.to_vec()))
        };
        Users(lines.filter_map(pair).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name.as_bytes())
    }

    /// The password is this user's. Everything is compared, so that the time tells nothing.
    pub fn admit(&self, name: &[u8], password: &[u8]) -> bool {
        let mut found = Choice::from(0);
        for (n, p) in &self.0 {
            found |= n.as_slice().ct_eq(name) & p.as_slice().ct_eq(password);
        }
        found.into()
    }
}

/// SASL PLAIN (RFC 4616): an identity to act as (ignored), the name, the password, with zero bytes between.
pub(super) fn sasl_plain(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = token.splitn(3, |b| *b == 0);
    let (_, name, password) = (parts.next()?, parts.next()?, parts.next()?);
    // Some clients end the password with another zero.
    let password = password.strip_suffix(b"\0").unwrap_or(password);
    (!name.is_empty()).then_some((name, password))
}

/// What a client that has not logged in asks by text: `set <any key> <flags> <exptime> <bytes>`, its data
/// `name password`, is memcached's way to log in. `skip`: bytes behind it that are to be left out.
pub(super) fn by_text(
    client: &mut Client<'_, '_>,
    words: &[u8],
    buffer: &[u8],
    end: usize,
    skip: &mut u64,
) -> Step {
    let request = text::decode(words);
    if request == Request::Quit {
        return Step::Close(end);
    }
    let bytes = match request {
        Request::Store(storage) if text::words(words)[0] == b"set" => storage.bytes,
        request => {
            // Its data may be as long as that of anybody: left out as it comes.
            *skip = request.data_bytes();
            line(client, UNAUTHENTICATED);
            return Step::Done(end);
        }
    };
    if bytes > TOKEN_BYTES_MAX {
        line(client, BAD_TOKEN);
        return Step::Close(end);
    }
    let Some(data) = buffer.get(end..end + bytes + 2) else {
        return Step::Need;
    };
    let end = end + bytes + 2;
    let Some(token) = data.strip_suffix(b"\r\n") else {
        line(client, "CLIENT_ERROR bad command line termination");
        return Step::Done(end);
    };
    match text::words(token).as_slice() {
        [name, password, ..] => {
            let admitted = log_in(client, name, password);
            let text = if admitted { "STORED" } else { "CLIENT_ERROR authentication failure" };
            line(client, text);
        }
        _ => line(client, BAD_TOKEN),
    }
    Step::Done(end)
}

/// Checks a name and a password; the session is authenticated from then on. A user of the ACL must be one who may do
/// everything: rights to some keys or commands are not looked at here.
pub(super) fn log_in(client: &mut Client<'_, '_>, name: &[u8], password: &[u8]) -> bool {
    let shared = client.executor.shared;
    client.count(Count::AuthCmds);
    if shared.memcached.users.admit(name, password) {
        client.session.authenticated = true;
        client.session.rights = shared.acl.rights_of_a_stranger();
        let name = crate::command::exec::printable(name);
        client.session.info.set_names(|names| names.user = name);
        return true;
    }
    let user = shared.acl.authenticate(name, password).filter(|user| user.is_unrestricted());
    if let Some(user) = user {
        shared.acl.become_user(client.session, user);
        return true;
    }
    client.count(Count::AuthErrors);
    false
}

/// The users have changed: a client whose user is gone, or may not do everything any more, has to log in again.
#[cold]
pub fn recheck(shared: &Shared, session: &mut Session) {
    if shared.memcached.users.has(&session.info.names().user) {
        session.rights = shared.acl.rights_of_a_stranger();
        return;
    }
    let was_in = session.authenticated;
    shared.acl.refresh(session);
    let stays = was_in && session.authenticated && !session.rights.restricted;
    session.authenticated = stays || shared.memcached.is_open(&shared.acl);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listed_are_admitted_and_nobody_else() {
        let users = Users::parse(b"# no\nann:one\r\nbob:two:three\n:x\nnone:\n");
        for (name, password, admitted) in [
            ("ann", "one", true),
            ("bob", "two:three", true),
            ("ann", "two:three", false),
            ("ann", "on", false),
            ("", "x", false),
            ("none", "", false),
            ("default", "", false),
        ] {
            let admits = users.admit(name.as_bytes(), password.as_bytes());
            assert_eq!(admits, admitted, "{name} {password}");
        }
    }

    #[test]
    fn a_plain_token_has_three_parts() {
        assert_eq!(sasl_plain(b"\0ann\0one"), Some((&b"ann"[..], &b"one"[..])));
        assert_eq!(sasl_plain(b"id\0ann\0one\0"), Some((&b"ann"[..], &b"one"[..])));
        for bad in [&b""[..], b"ann", b"\0ann", b"\0\0one"] {
            assert_eq!(sasl_plain(bad), None);
        }
    }
}
