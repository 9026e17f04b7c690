//! A selector: which commands, on which keys, over which channels. A user has one or more.
//!
//! ```text
//! rules as they came:  -@all +@read -keys +config|get        (kept, in order, for ACL LIST)
//!   compiled to:       one bit a command and subcommand      (looked at by every request)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::rule::{RuleError, lower};
use crate::command::{Command, access, categories, flag};
use crate::glob;

/// Keys that match may be read, written or both.
#[derive(Clone, PartialEq, Eq)]
struct KeyPattern {
    pattern: Vec<u8>,
    /// `access::READ`, `access::WRITE` or both.
    allows: u8,
}

#[derive(Clone)]
pub struct Selector {
    /// By the numbers of `categories`.
    allowed: Vec<u64>,
    /// Every bit is set, and nothing was taken away since `+@all`.
    all_commands: bool,
    /// The rules start from `+@all`.
    starts_from_all: bool,
    /// `+select|0`: words that a command, otherwise forbidden, may have as its first argument.
    first_words: BTreeMap<usize, Vec<Vec<u8>>>,
    /// `+get`, `-@dangerous`: in the order in which they hold, each but the sign once.
    rules: Vec<String>,
    all_keys: bool,
    keys: Vec<KeyPattern>,
    all_channels: bool,
    channels: Vec<Vec<u8>>,
    /// The databases on which commands may run that have to do with keys; none: all.
    databases: Option<BTreeSet<i32>>,
}

/// What a selector, or all of a user's, refuses; in the order of what is told when several refuse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    Command,
    Key,
    Channel,
    Database,
    /// A wrong password; no selector's.
    Auth,
    /// A certificate that names nobody who may log in.
    Certificate,
}

/// A refusal, and which argument is the cause.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Denied {
    pub reason: Reason,
    pub at: usize,
}

impl Selector {
    /// Without rights, but for those that `acl-pubsub-default` gives.
    pub fn new(all_channels: bool) -> Selector {
        Selector {
            allowed: vec![0; categories::count().div_ceil(64)],
            all_commands: false,
            starts_from_all: false,
            first_words: BTreeMap::new(),
            rules: Vec::new(),
            all_keys: false,
            keys: Vec::new(),
            all_channels,
            channels: Vec::new(),
            databases: None,
        }
    }

    /// Nothing at all is refused.
    pub fn allows_everything(&self) -> bool {
        self.all_commands && self.all_keys && self.all_channels && self.databases.is_none()
    }

    fn set(&mut self, id: usize, allow: bool) {
        let Some(word) = self.allowed.get_mut(id / 64) else { return };
        let bit = 1 << (id % 64);
        if allow {
            *word |= bit;
        } else {
            *word &= !bit;
            self.all_commands = false;
        }
    }

    fn has(&self, id: usize) -> bool {
        self.all_commands
            || self.allowed.get(id / 64).is_some_and(|word| word & 1 << (id % 64) != 0)
    }

    /// One rule, as ACL SETUSER takes it; on an error nothing has changed.
    pub fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match lower(rule).as_slice() {
            b"allkeys" | b"~*" => {
                self.all_keys = true;
                self.keys.clear();
            }
            b"resetkeys" => {
                self.all_keys = false;
                self.keys.clear();
            }
            b"allchannels" | b"&*" => {
                self.all_channels = true;
                self.channels.clear();
            }
            b"resetchannels" => {
                self.all_channels = false;
                self.channels.clear();
            }
            b"alldbs" => self.databases = None,
            b"resetdbs" => self.databases = Some(BTreeSet::new()),
            [b'd', b'b', b'=', numbers @ ..] => self.databases = Some(parse_databases(numbers)?),
            b"allcommands" | b"+@all" => self.begin(true),
            b"nocommands" | b"-@all" => self.begin(false),
            _ => return self.apply_one(rule),
        }
        Ok(())
    }

    fn begin(&mut self, all: bool) {
        self.allowed.fill(if all { u64::MAX } else { 0 });
        self.all_commands = all;
        self.starts_from_all = all;
        self.first_words.clear();
        self.rules.clear();
    }

    fn apply_one(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match rule {
            [b'~' | b'%', ..] => self.add_keys(rule),
            [b'&', pattern @ ..] => {
                if self.all_channels {
                    return Err(RuleError::AllChannels);
                }
                check_pattern(pattern)?;
                if !self.channels.iter().any(|known| known == pattern) {
                    self.channels.push(pattern.to_vec());
                }
                Ok(())
            }
            [sign @ (b'+' | b'-'), b'@', name @ ..] => self.set_category(name, *sign == b'+'),
            [b'+', name @ ..] => self.allow(name),
            [b'-', name @ ..] => {
                let (command, sub) = categories::named(name).ok_or(RuleError::Unknown)?;
                self.set_command(command, sub, false);
                Ok(())
            }
            _ => Err(RuleError::Syntax),
        }
    }

    /// `~p`, `%R~p`, `%W~p`, `%RW~p`.
    fn add_keys(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::AllKeys);
        }
        let (mut allows, mut pattern) = (access::READ | access::WRITE, &rule[1..]);
        if rule[0] == b'%' {
            let tilde = pattern.iter().position(|b| *b == b'~').ok_or(RuleError::Syntax)?;
            allows = match lower(&pattern[..tilde]).as_slice() {
                b"r" => access::READ,
                b"w" => access::WRITE,
                b"rw" | b"wr" => access::READ | access::WRITE,
                _ => return Err(RuleError::Syntax),
            };
            pattern = &pattern[tilde + 1..];
        }
        check_pattern(pattern)?;
        match self.keys.iter_mut().find(|known| known.pattern == pattern) {
            Some(known) => known.allows |= allows,
            None => self.keys.push(KeyPattern { pattern: pattern.to_vec(), allows }),
        }
        Ok(())
    }

    fn set_category(&mut self, name: &[u8], allow: bool) -> Result<(), RuleError> {
        let category = categories::find(name).ok_or(RuleError::Unknown)?;
        for id in 0..categories::count() {
            if categories::by_id(id) & category != 0 {
                self.set(id, allow);
                self.first_words.remove(&id);
            }
        }
        let name = lower(name);
        self.note(&format!("@{}", String::from_utf8_lossy(&name)), allow);
        Ok(())
    }

    /// `get`, `config|get`, or `select|0`: a word in front of which there is no subcommand.
    fn allow(&mut self, name: &[u8]) -> Result<(), RuleError> {
        let Some(bar) = name.iter().rposition(|b| *b == b'|') else {
            let (command, _) = categories::named(name).ok_or(RuleError::Unknown)?;
            self.set_command(command, None, true);
            return Ok(());
        };
        let (before, word) = (&name[..bar], &name[bar + 1..]);
        let (command, sub) = categories::named(before).ok_or(RuleError::Unknown)?;
        if sub.is_some() {
            return Err(RuleError::WordOfSubcommand);
        }
        if word.is_empty() {
            return Err(RuleError::Syntax);
        }
        if categories::subs(command).is_empty() {
            check_pattern(word)?;
            let text = std::str::from_utf8(word).map_err(|_| RuleError::Syntax)?;
            let words = self.first_words.entry(command.id()).or_default();
            if !words.iter().any(|known| known.eq_ignore_ascii_case(word)) {
                words.push(word.to_vec());
            }
            self.note(&format!("{}|{}", command.name, text.to_ascii_lowercase()), true);
        } else {
            let (command, sub) = categories::named(name).ok_or(RuleError::Unknown)?;
            self.set_command(command, sub, true);
        }
        Ok(())
    }

    fn set_command(
        &mut self,
        command: &'static Command,
        sub: Option<&'static categories::Sub>,
        allow: bool,
    ) {
        if let Some(sub) = sub {
            self.set(sub.id, allow);
            return self.note(&sub.full_name, allow);
        }
        self.set(command.id(), allow);
        self.first_words.remove(&command.id());
        for sub in categories::subs(command) {
            self.set(sub.id, allow);
        }
        self.note(command.name, allow);
    }

    /// Keeps a rule behind the others; what it overrides, itself and its subcommands', goes.
    fn note(&mut self, rule: &str, allow: bool) {
        self.rules.retain(|known| {
            let rest = known[1..].strip_prefix(rule);
            !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('|'))
        });
        self.rules.push(format!("{}{rule}", if allow { '+' } else { '-' }));
    }

    /// May a request be made under this selector, in that database?
    pub fn check(&self, command: &'static Command, args: &[&[u8]], db: u16) -> Result<(), Denied> {
        if !self.all_commands && !self.allows_command(command, args) {
            return Err(Denied { reason: Reason::Command, at: 0 });
        }
        if !self.all_keys && !command.names_no_keys() {
            for (nth, at) in command.key_positions(args).into_iter().enumerate() {
                if !self.allows_key(args[at], access::need(command, args, nth)) {
                    return Err(Denied { reason: Reason::Key, at });
                }
            }
        }
        if !self.all_channels
            && let Some((places, is_pattern)) = access::channels(command, args)
        {
            for at in places {
                if !self.allows_channel(args[at], is_pattern) {
                    return Err(Denied { reason: Reason::Channel, at });
                }
            }
        }
        if let Some(allowed) = &self.databases
            && let Some(at) = access::foreign_database(command, args, db, allowed)
        {
            return Err(Denied { reason: Reason::Database, at });
        }
        Ok(())
    }

    fn allows_command(&self, command: &'static Command, args: &[&[u8]]) -> bool {
        if command.is(flag::NO_AUTH) {
            return true;
        }
        let subs = categories::subs(command);
        if let (false, Some(word)) = (subs.is_empty(), args.get(1)) {
            return match categories::sub_of(command, args) {
                Some(sub) => self.has(sub.id),
                // One that nobody knows rights of: for those who may run all that are known.
                None => {
                    self.has(command.id())
                        && (subs.iter().all(|sub| self.has(sub.id)) || word.is_empty())
                }
            };
        }
        self.has(command.id())
            || self.first_words.get(&command.id()).zip(args.get(1)).is_some_and(|(words, first)| {
                words.iter().any(|word| word.eq_ignore_ascii_case(first))
            })
    }

    fn allows_key(&self, key: &[u8], need: u8) -> bool {
        let fits = |p: &KeyPattern| p.allows & need == need && glob::matches(&p.pattern, key);
        self.all_keys || self.keys.iter().any(fits)
    }

    /// Some pattern lets the key be read.
    pub fn reads_key(&self, key: &[u8]) -> bool {
        self.allows_key(key, access::READ)
    }

    /// Every key may be read: what SORT asks for whose patterns name keys that nobody knows before.
    pub fn reads_all_keys(&self) -> bool {
        let fits = |p: &KeyPattern| p.allows & access::READ != 0 && p.pattern == b"*";
        self.all_keys || self.keys.iter().any(fits)
    }

    /// A channel is matched; a pattern that somebody wants to listen to must be allowed as it stands.
    pub fn allows_channel(&self, name: &[u8], is_pattern: bool) -> bool {
        let fits = |allowed: &Vec<u8>| {
            if is_pattern { allowed == name } else { glob::matches(allowed, name) }
        };
        self.all_channels || self.channels.iter().any(fits)
    }

    /// `-@all +get`
    pub fn commands_text(&self) -> String {
        let begin = if self.starts_from_all { "+@all" } else { "-@all" };
        std::iter::once(begin)
            .chain(self.rules.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// `~a* %R~b*`
    pub fn keys_text(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let sign = |allows: u8| match allows {
            access::READ => "%R~",
            access::WRITE => "%W~",
            _ => "~",
        };
        let texts = self.keys.iter().map(|p| [sign(p.allows).as_bytes(), &p.pattern].concat());
        texts.collect::<Vec<_>>().join(&b' ')
    }

    /// `&a* &b`
    pub fn channels_text(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        self.channels.iter().map(|c| [b"&", c.as_slice()].concat()).collect::<Vec<_>>().join(&b' ')
    }

    /// `db=0,1`, `resetdbs`, or nothing for all.
    fn databases_text(&self) -> String {
        match &self.databases {
            None => String::new(),
            Some(none) if none.is_empty() => "resetdbs".into(),
            Some(some) => {
                let numbers: Vec<String> = some.iter().map(i32::to_string).collect();
                format!("db={}", numbers.join(","))
            }
        }
    }

    /// There is a rule on databases.
    pub fn has_databases(&self) -> bool {
        self.databases.is_some()
    }

    /// The same as ACL GETUSER tells it.
    pub fn databases_told(&self) -> String {
        let text = self.databases_text();
        if text == "resetdbs" { String::new() } else { text }
    }

    /// All of it, in the form that `apply` takes word by word.
    pub fn text(&self) -> Vec<u8> {
        let mut text = self.keys_text();
        let mut add = |word: &[u8]| {
            if !text.is_empty() && !word.is_empty() {
                text.push(b' ');
            }
            text.extend_from_slice(word);
        };
        if !self.all_channels {
            add(b"resetchannels");
        }
        add(&self.channels_text());
        add(self.databases_text().as_bytes());
        add(self.commands_text().as_bytes());
        text
    }
}

/// Numbers with commas between them; of databases that this server may not have.
fn parse_databases(text: &[u8]) -> Result<BTreeSet<i32>, RuleError> {
    let number = |word: &[u8]| {
        let word = std::str::from_utf8(word).map_err(|_| RuleError::Syntax)?;
        let digits = word.strip_prefix('-').unwrap_or(word);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(RuleError::Syntax);
        }
        let number = word.parse::<i32>().ok().filter(|n| *n >= 0);
        number.ok_or(RuleError::NoSuchDatabase)
    };
    text.split(|b| *b == b',').map(number).collect()
}

/// Patterns are written behind each other with spaces between them.
fn check_pattern(pattern: &[u8]) -> Result<(), RuleError> {
    let breaks = |b: &u8| b.is_ascii_whitespace() || *b == 0 || *b == 0x0b;
    if pattern.iter().any(breaks) { Err(RuleError::Syntax) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
