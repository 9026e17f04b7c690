//! Who may speak Memcached: the users of a file, and the password that RESP clients give.

use std::io;

use subtle::{Choice, ConstantTimeEq};

/// Largest file of users, bytes, and most users in it.
const FILE_BYTES_MAX: u64 = 1 << 20;
const USERS_MAX: usize = 4096;

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

    /// The password is this user's. `requirepass` is the password of the user `default`, or empty. Everything
    /// is compared, so that the time tells nothing.
    pub fn admit(&self, name: &[u8], password: &[u8], requirepass: &[u8]) -> bool {
        let default: [(&[u8], &[u8]); 1] = [(b"default", requirepass)];
        let own = if requirepass.is_empty() { &default[..0] } else { &default[..] };
        let listed = self.0.iter().map(|(n, p)| (n.as_slice(), p.as_slice()));
        let mut found = Choice::from(0);
        for (n, p) in listed.chain(own.iter().copied()) {
            found |= n.ct_eq(name) & p.ct_eq(password);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listed_and_the_default_user_are_admitted_and_nobody_else() {
        let users = Users::parse(b"# no\nann:one\r\nbob:two:three\n:x\nnone:\n");
        for (name, password, admitted) in [
            ("ann", "one", true),
            ("bob", "two:three", true),
            ("ann", "two:three", false),
            ("ann", "on", false),
            ("", "x", false),
            ("none", "", false),
            ("default", "secret", true),
            ("default", "", false),
        ] {
            let admits = users.admit(name.as_bytes(), password.as_bytes(), b"secret");
            assert_eq!(admits, admitted, "{name} {password}");
        }
        assert!(!users.admit(b"default", b"", b""));
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
