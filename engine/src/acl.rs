//! Access control: users, what each may do, and who was refused.
//!
//! ```text
//! rules (ACL SETUSER, `user` lines, aclfile, requirepass) -> User: selectors compiled to one bit a command
//! session -> Rights: its user, and whether there is anything to look at at all
//! request -> rights.restricted? -> some selector allows the command, every key and every channel
//! ```
//!
//! A session keeps its user until the generation of the users changes, which it sees before its next batch of
//! requests. A user with every right costs its requests one flag.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::Config;
use crate::server::Shared;
use crate::session::{ClientInfo, Session};

mod check;
mod file;
mod log;
mod rule;
mod selector;
mod user;

pub(crate) use check::told_text;
pub use check::{
    log_in_by_certificate, note_wrong_password, refusal, refusal_at_exec, refusal_of_waiter,
};
pub use log::{Context, Entry, Log, Refusal};
pub use rule::{RuleError, join_selectors};
pub use selector::{Denied, Reason, Selector};
pub use user::{User, is_name};

const DEFAULT: &str = "default";

/// What a session may do, as of a generation of the users.
#[derive(Default)]
pub struct Rights {
    /// None: the server itself, which may do anything.
    pub user: Option<Arc<User>>,
    /// There is something to be looked at.
    pub restricted: bool,
    generation: u64,
}

type Users = BTreeMap<String, Arc<User>>;

pub struct Acl {
    users: RwLock<Users>,
    generation: AtomicU64,
    next_identity: AtomicU64,
    /// Some user may not do everything.
    restricts: AtomicBool,
    /// The default user is enabled and needs no password: connections need no AUTH.
    open: AtomicBool,
    pub log: Log,
}

impl Acl {
    /// The default user alone.
    pub fn new(password: &[u8]) -> Acl {
        let acl = Acl {
            users: RwLock::default(),
            generation: AtomicU64::new(0),
            next_identity: AtomicU64::new(2),
            restricts: AtomicBool::new(false),
            open: AtomicBool::new(false),
            log: Log::default(),
        };
        acl.change(|users| {
            users.insert(DEFAULT.into(), Arc::new(User::default_with(1, password)));
        });
        acl
    }

    /// The users of the settings: `requirepass`, and either `user` lines or an `aclfile`.
    pub fn from_config(config: &Config) -> Result<Acl, String> {
        let acl = Acl::new(config.get("requirepass").unwrap_or_default().as_bytes());
        if let Some(path) = file_of(config) {
            if !config.users.is_empty() {
                return Err(
                    "users are defined in the configuration and in an ACL file: only one of the two may define them"
                        .into(),
                );
            }
            let loaded = file::load(&path, all_channels(config))?;
            acl.replace(loaded, config);
        }
        for line in &config.users {
            acl.define(line, all_channels(config))?;
        }
        Ok(acl)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Users) -> T) -> T {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        let done = change(&mut users);
        let default = users.get(DEFAULT);
        self.open.store(default.is_some_and(|u| u.enabled && u.nopass), Ordering::Release);
        self.restricts.store(users.values().any(|u| !u.is_unrestricted()), Ordering::Release);
        // Last: who sees the new generation sees the new users.
        self.generation.fetch_add(1, Ordering::Release);
        done
    }

    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// In the order of their names.
    pub fn users(&self) -> Vec<Arc<User>> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Connections need no AUTH.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// The default user needs no password: what protected mode guards.
    pub fn default_has_no_password(&self) -> bool {
        self.user(DEFAULT).is_some_and(|user| user.nopass)
    }

    /// Connections may do everything without AUTH.
    pub fn everything_is_open(&self) -> bool {
        let default = self.user(DEFAULT);
        default.is_some_and(|user| user.enabled && user.nopass && user.is_unrestricted())
    }

    /// Of a client that a list of its own knows, and not this one.
    pub fn rights_of_a_stranger(&self) -> Rights {
        Rights { generation: self.generation.load(Ordering::Acquire), ..Rights::default() }
    }

    /// The user that a name and a password are right for.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        let user = std::str::from_utf8(name).ok().and_then(|name| self.user(name));
        let (found, nobody);
        let user = if let Some(user) = user {
            found = user;
            &found
        } else {
            // Takes as long as for one that exists.
            nobody = Arc::new(User::new("", 0, false));
            &nobody
        };
        let fits = user.has_password(password);
        (fits && user.enabled).then(|| user.clone())
    }

    /// ACL SETUSER: all of the rules or none; the error is the reply's text.
    pub fn set_user(&self, name: &[u8], rules: &[&[u8]], all_channels: bool) -> Result<(), String> {
        use crate::command::exec::printable;
        if !is_name(name) {
            return Err("Usernames can't contain spaces or null characters".into());
        }
        let name = String::from_utf8_lossy(name).into_owned();
        let rules = join_selectors(rules).map_err(|at| {
            let begin = printable(rules[at]);
            format!("Unmatched parenthesis in acl selector starting at '{begin}'.")
        })?;
        self.change(|users| {
            let mut user = match users.get(&name) {
                Some(user) => User::clone(user),
                None => User::new(
                    &name,
                    self.next_identity.fetch_add(1, Ordering::Relaxed),
                    all_channels,
                ),
            };
            for rule in &rules {
                user.apply(rule, all_channels).map_err(|error| {
                    let (rule, text) = (printable(rule), error.text());
                    format!("Error in ACL SETUSER modifier '{rule}': {text}")
                })?;
            }
            users.insert(name, Arc::new(user));
            Ok(())
        })
    }

    /// A `user` line of the configuration: the rules are all that the user has.
    pub fn define(&self, line: &[String], all_channels: bool) -> Result<(), String> {
        let words: Vec<&[u8]> = line.iter().map(String::as_bytes).collect();
        let (name, rules) = words.split_first().ok_or("wrong number of arguments")?;
        let mut all: Vec<&[u8]> = Vec::with_capacity(words.len());
        if *name == DEFAULT.as_bytes() {
            all.push(b"reset");
        }
        all.extend(rules);
        self.set_user(name, &all, all_channels).map_err(|error| {
            // A rule with a password in clear is not shown.
            let is_secret = rules.iter().any(|r| matches!(r.first(), Some(b'>' | b'<')));
            let error =
                if is_secret { error.rsplit(": ").next().unwrap_or_default() } else { &error };
            format!("Error in user declaration '{}': {error}", String::from_utf8_lossy(name))
        })
    }

    /// Removes users; gives those that there were.
    pub fn remove(&self, names: &[&[u8]]) -> Vec<Arc<User>> {
        let names = names.iter().filter_map(|name| std::str::from_utf8(name).ok());
        self.change(|users| names.filter_map(|name| users.remove(name)).collect())
    }

    /// CONFIG SET requirepass: the default user's only password.
    pub fn set_default_password(&self, password: &[u8]) {
        self.change(|users| {
            if let Some(user) = users.get_mut(DEFAULT) {
                Arc::make_mut(user).set_only_password(password);
            }
        });
    }

    /// These users in place of all others. One of the same name is the same user.
    fn replace(&self, loaded: Vec<User>, config: &Config) {
        self.change(|users| {
            let old = std::mem::take(users);
            for mut user in loaded {
                let known = old.get(&user.name).map(|user| user.identity);
                user.identity =
                    known.unwrap_or_else(|| self.next_identity.fetch_add(1, Ordering::Relaxed));
                users.insert(user.name.clone(), Arc::new(user));
            }
            // A file without a default user does not open what a password guards.
            let password = config.get("requirepass").unwrap_or_default();
            users
                .entry(DEFAULT.into())
                .or_insert_with(|| Arc::new(User::default_with(1, password.as_bytes())));
        });
    }

    /// The session's rights are those of users who have changed since.
    #[inline]
    pub fn is_newer(&self, rights: &Rights) -> bool {
        rights.generation != self.generation.load(Ordering::Acquire)
    }

    /// Brings a session's rights up to date. One whose user is gone may do nothing more; it is being closed.
    #[cold]
    pub fn refresh(&self, session: &mut Session) {
        let generation = self.generation.load(Ordering::Acquire);
        let known = session.rights.user.as_ref();
        let user = self.user(known.map_or(DEFAULT, |user| &user.name));
        let same = user.filter(|user| known.is_none_or(|known| known.identity == user.identity));
        if same.is_none() {
            session.authenticated = false;
        } else if self.is_open() && known.is_none_or(|known| known.name == DEFAULT) {
            session.authenticated = true;
        }
        let user = same.unwrap_or_else(|| Arc::new(User::new("", 0, false)));
        let restricted = !user.is_unrestricted();
        session.rights = Rights { user: Some(user), restricted, generation };
    }

    /// The session is this user's from now on.
    pub fn become_user(&self, session: &mut Session, user: Arc<User>) {
        session.info.set_names(|names| names.user.clone_from(&user.name));
        session.authenticated = true;
        session.rights = Rights { user: Some(user), restricted: false, generation: 0 };
        self.refresh(session);
    }

    /// RESET: as a connection begins.
    pub fn become_default(&self, session: &mut Session) {
        session.info.set_names(|names| names.user = DEFAULT.into());
        session.authenticated = self.is_open();
        session.rights = Rights::default();
        self.refresh(session);
    }

    /// Whose client this is, when there is anything to look at.
    pub fn restricted_user_of(&self, client: &ClientInfo) -> Option<Arc<User>> {
        if !self.restricts.load(Ordering::Acquire) {
            return None;
        }
        self.user(&client.names().user).filter(|user| !user.is_unrestricted())
    }
}

/// acl-pubsub-default
pub fn all_channels(config: &Config) -> bool {
    config.get("acl-pubsub-default").as_deref() == Some("allchannels")
}

/// Where the ACL file is, if there is to be one.
pub fn file_of(config: &Config) -> Option<PathBuf> {
    let name = config.get("aclfile").filter(|name| !name.is_empty())?;
    Some(PathBuf::from(config.get("dir").unwrap_or_default()).join(name))
}

/// ACL LOAD: the file's users, or the running ones as they were and why.
pub fn load(shared: &Shared, path: &std::path::Path) -> Result<(), String> {
    let loaded = file::load(path, all_channels(&shared.config))?;
    shared.acl.replace(loaded, &shared.config);
    close_orphans(shared);
    close_subscribers(shared);
    Ok(())
}

/// ACL SAVE
pub fn save(shared: &Shared, path: &std::path::Path) -> std::io::Result<()> {
    let users = shared.acl.users();
    file::save(path, users.iter().map(Arc::as_ref))
}

/// The users as lines of a configuration file, for CONFIG REWRITE. There are none when a file of their own has
/// them, and none for a default user that `requirepass` alone describes.
pub fn config_lines(shared: &Shared) -> Result<Vec<String>, String> {
    if file_of(&shared.config).is_some() {
        return Ok(Vec::new());
    }
    let password = shared.config.get("requirepass").unwrap_or_default();
    let implied = User::default_with(1, password.as_bytes()).line();
    let mut lines = Vec::new();
    for user in shared.acl.users() {
        if user.name == DEFAULT && user.line() == implied {
            continue;
        }
        let mut line = format!("user {}", crate::config::file::quote(&user.name));
        for word in user.words() {
            let word = String::from_utf8(word)
                .map_err(|_| format!("a rule of the user '{}' is not UTF-8", user.name))?;
            line.push(' ');
            // A hash is no comment behind the line's first word.
            match word.strip_prefix('#') {
                Some(digits) => line.extend(["#", digits]),
                None => line.push_str(&crate::config::file::quote(&word)),
            }
        }
        lines.push(line);
    }
    Ok(lines)
}

/// Closes clients whose user is no more.
pub fn close_orphans(shared: &Shared) {
    for client in shared.clients.all() {
        let name = client.names().user;
        let is_listed =
            client.memcached.load(Ordering::Relaxed) && shared.memcached.users.has(&name);
        if shared.acl.user(&name).is_none() && !is_listed {
            shared.kill(&client);
        }
    }
}

/// Closes subscribers of channels that their users may not listen to any more.
pub fn close_subscribers(shared: &Shared) {
    let mut lost = Vec::new();
    shared.pubsub.each_subscription(|name, is_pattern, client| {
        let user = shared.acl.restricted_user_of(client);
        if user.is_some_and(|user| !user.allows_channel(name, is_pattern)) {
            lost.push(client.clone());
        }
    });
    lost.iter().for_each(|client| shared.kill(client));
}
