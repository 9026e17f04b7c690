//! A user: may it log in, with which passwords, and what may it do. A value: a change makes a new one.

use std::fmt::Write as _;

use sha2::Digest as _;
use subtle::ConstantTimeEq as _;

use super::rule::{RuleError, lower};
use super::selector::{Denied, Reason, Selector};
use crate::command::Command;

/// SHA-256 of a password: no password is kept.
type Hash = [u8; 32];

#[derive(Clone)]
pub struct User {
    pub name: String,
    /// The same for all versions of one user, another for one of the same name that is made later.
    pub identity: u64,
    pub enabled: bool,
    /// Any password will do.
    pub nopass: bool,
    /// `sanitize-payload` or its opposite, where one was said. RESTORE checks what it gets in any case.
    sanitizes: Option<bool>,
    passwords: Vec<Hash>,
    /// The first is the user's own, the others stand in parentheses. Never empty.
    selectors: Vec<Selector>,
}

impl User {
    /// Disabled, without a password, without rights.
    pub fn new(name: &str, identity: u64, all_channels: bool) -> User {
        User {
            name: name.to_string(),
            identity,
            enabled: false,
            nopass: false,
            sanitizes: None,
            passwords: Vec::new(),
            selectors: vec![Selector::new(all_channels)],
        }
    }

    /// With every right; without a password, unless there is one.
    pub fn default_with(identity: u64, password: &[u8]) -> User {
        let mut user = User::new("default", identity, true);
        user.enabled = true;
        for rule in [b"+@all".as_slice(), b"~*", b"&*"] {
            // These are known rules.
            let _ = user.selectors[0].apply(rule);
        }
        user.set_only_password(password);
        user
    }

    /// One password in place of all others; an empty one: none is asked for.
    pub fn set_only_password(&mut self, password: &[u8]) {
        self.passwords.clear();
        self.nopass = password.is_empty();
        if !self.nopass {
            self.passwords.push(hash(password));
        }
    }

    /// Takes the same time whichever of the passwords fits and wherever they differ.
    pub fn has_password(&self, password: &[u8]) -> bool {
        let given = hash(password);
        let mut fits = subtle::Choice::from(0);
        for known in &self.passwords {
            fits |= known.ct_eq(&given);
        }
        bool::from(fits) || self.nopass
    }

    /// May do anything: nothing needs to be looked at.
    pub fn is_unrestricted(&self) -> bool {
        self.selectors.iter().any(Selector::allows_everything)
    }

    /// One rule of ACL SETUSER, a selector in parentheses as one word. On an error the user is of no use.
    pub fn apply(&mut self, rule: &[u8], all_channels: bool) -> Result<(), RuleError> {
        match lower(rule).as_slice() {
            b"" => {}
            b"on" => self.enabled = true,
            b"off" => self.enabled = false,
            b"skip-sanitize-payload" => self.sanitizes = Some(false),
            b"sanitize-payload" => self.sanitizes = Some(true),
            b"nopass" | b"resetpass" => {
                self.nopass = rule.eq_ignore_ascii_case(b"nopass");
                self.passwords.clear();
            }
            b"clearselectors" => self.selectors.truncate(1),
            b"reset" => {
                *self = User::new(&self.name, self.identity, all_channels);
                self.sanitizes = Some(true);
            }
            _ => return self.apply_one(rule, all_channels),
        }
        Ok(())
    }

    fn apply_one(&mut self, rule: &[u8], all_channels: bool) -> Result<(), RuleError> {
        match rule {
            [b'>', password @ ..] => self.add_password(hash(password)),
            [b'#', digits @ ..] => self.add_password(parse_hash(digits)?),
            [b'<', password @ ..] => return self.remove_password(hash(password)),
            [b'!', digits @ ..] => return self.remove_password(parse_hash(digits)?),
            [b'(', words @ .., b')'] => {
                let mut selector = Selector::new(all_channels);
                for word in words.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()) {
                    // Written to a file, it would end the selector there: nobody could read it back.
                    if word.ends_with(b")") {
                        return Err(RuleError::Syntax);
                    }
                    selector.apply(word)?;
                }
                self.selectors.push(selector);
            }
            _ => return self.selectors[0].apply(rule),
        }
        Ok(())
    }

    fn add_password(&mut self, hash: Hash) {
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
        self.nopass = false;
    }

    fn remove_password(&mut self, hash: Hash) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|known| *known == hash);
        self.passwords.remove(at.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    /// One selector must allow all of a request. What is told otherwise is the refusal that came furthest.
    pub fn check(&self, command: &'static Command, args: &[&[u8]], db: u16) -> Result<(), Denied> {
        let mut worst = Denied { reason: Reason::Command, at: 0 };
        for selector in &self.selectors {
            match selector.check(command, args, db) {
                Ok(()) => return Ok(()),
                Err(denied) => worst = worst.max(denied),
            }
        }
        Err(worst)
    }

    /// May make a request, and read every key there is.
    pub fn reads_all_keys(&self, command: &'static Command, args: &[&[u8]], db: u16) -> bool {
        let fits = |s: &Selector| s.reads_all_keys() && s.check(command, args, db).is_ok();
        self.selectors.iter().any(fits)
    }

    /// Some pattern of some selector lets the key be read.
    pub fn reads_key(&self, key: &[u8]) -> bool {
        self.selectors.iter().any(|s| s.reads_key(key))
    }

    pub fn allows_channel(&self, name: &[u8], is_pattern: bool) -> bool {
        self.selectors.iter().any(|s| s.allows_channel(name, is_pattern))
    }

    /// The user's own selector.
    pub fn root(&self) -> &Selector {
        &self.selectors[0]
    }

    /// Those in parentheses.
    pub fn others(&self) -> &[Selector] {
        &self.selectors[1..]
    }

    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.enabled { "on" } else { "off" }];
        if self.nopass {
            flags.push("nopass");
        }
        match self.sanitizes {
            Some(true) => flags.push("sanitize-payload"),
            Some(false) => flags.push("skip-sanitize-payload"),
            None => {}
        }
        flags
    }

    /// Hashes of the passwords, in hexadecimal.
    pub fn hashes(&self) -> Vec<String> {
        self.passwords.iter().map(hex).collect()
    }

    /// Words that make this user of one that has just been made: a line of ACL LIST and of files.
    pub fn words(&self) -> Vec<Vec<u8>> {
        let mut words: Vec<Vec<u8>> = self.flags().iter().map(|f| f.as_bytes().to_vec()).collect();
        words.extend(self.hashes().iter().map(|hash| format!("#{hash}").into_bytes()));
        let split = |text: Vec<u8>| -> Vec<Vec<u8>> {
            text.split(|b| *b == b' ').map(<[u8]>::to_vec).collect()
        };
        words.extend(split(self.root().text()));
        for selector in self.others() {
            words.extend(split([b"(", selector.text().as_slice(), b")"].concat()));
        }
        words
    }

    /// `user alice on #... ~* &* +@all`
    pub fn line(&self) -> Vec<u8> {
        let mut line = format!("user {} ", self.name).into_bytes();
        line.extend(self.words().join(&b' '));
        line
    }
}

fn hash(password: &[u8]) -> Hash {
    sha2::Sha256::digest(password).into()
}

fn hex(hash: &Hash) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn parse_hash(digits: &[u8]) -> Result<Hash, RuleError> {
    let mut hash = Hash::default();
    let is_digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 64 || !digits.iter().all(is_digit) {
        return Err(RuleError::BadHash);
    }
    let value = |digit: u8| if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 };
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
    Ok(hash)
}

/// Can a user be called that? Names stand between spaces in lines.
pub fn is_name(name: &[u8]) -> bool {
    std::str::from_utf8(name)
        .is_ok_and(|name| !name.chars().any(|c| c.is_whitespace() || c.is_control()))
}
