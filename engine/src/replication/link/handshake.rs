//! The handshake: who we are, what we have, and what the primary makes of it.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Attempt, Takeover};
use crate::clock;
use crate::managed::Reign;
use crate::replication::payload::Wire;
use crate::replication::{is_replid, lock, timeout_ms};
use crate::resp::encode_request;
use crate::stream::Stream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked of a primary of our kind: whether it vouches for how current its stream is; up to where the history of
/// that name is its own, too; how far it is in acting under that shard epoch.
const CLOCK: &str = "larder-clock";
const COMMON: &str = "larder-common";
const REIGN: &str = "larder-reign";
/// How long a link waits for the primary to begin its history, milliseconds, and how often it asks.
const REIGN_MS: u64 = 100;
const LOOK: Duration = Duration::from_millis(1);

/// What the introduction told of the primary.
#[derive(Default)]
pub(super) struct Acquaintance {
    pub(super) vouches: bool,
    /// Up to where our history is its own, too: what is behind is lost if it must be.
    pub(super) diverged: Option<u64>,
}

/// What PSYNC was answered.
pub(super) enum Answer {
    Continue(Option<String>),
    Full(String, u64),
}

impl Attempt<'_> {
    pub(super) fn connect(&self) -> io::Result<Wire> {
        let config = &self.shared.config;
        let tls = match config.is_yes("tls-replication") {
            true => Some(self.shared.tls.dialling(config)?),
            false => None,
        };
        let (host, port) = (&self.link.host, self.link.port);
        let known = self.shared.connected_at(host, port);
        let stream = Stream::dial(host, port, known, tls, CONNECT_TIMEOUT)?;
        stream.as_a_replica()?;
        *lock(&self.link.stream) = Some(stream.clone());
        self.check_wanted()?;
        Wire::new(stream, timeout_ms(self.shared))
    }

    fn ask<W: AsRef<[u8]>>(&self, wire: &mut Wire, args: &[W]) -> io::Result<String> {
        wire.request(args)?;
        wire.line(&|| self.link.is_stopped())
    }

    /// Tells who we are, all in one write: clients may be held until this link is up.
    pub(super) fn introduce(&self, wire: &mut Wire) -> io::Result<Acquaintance> {
        let login = self.shared.config.login();
        let about = self.about();
        let mut bytes = Vec::new();
        encode_request(&mut bytes, &["PING"]);
        if let Some(login) = &login {
            encode_request(&mut bytes, login);
        }
        for (name, value) in &about {
            encode_request(&mut bytes, &["REPLCONF", name, value]);
        }
        wire.send(&bytes)?;
        let mut answer = || wire.line(&|| self.link.is_stopped());
        let pong = answer()?;
        let known = ["+PONG", "-NOAUTH", "-NOPERM", "-ERR operation not permitted"];
        if !known.iter().any(|k| pong.starts_with(k)) {
            return Err(io::Error::other(format!("PING was answered {pong:?}")));
        }
        if login.is_some() {
            let answer = answer()?;
            if !answer.starts_with('+') {
                return Err(io::Error::other(format!("AUTH was answered {answer:?}")));
            }
        }
        // What the primary does not know it answers with an error, and that is all right.
        let mut made = Acquaintance::default();
        for (name, _) in &about {
            let answer = answer()?;
            match *name {
                CLOCK => made.vouches = answer.starts_with('+'),
                COMMON => made.diverged = answer.strip_prefix('+').and_then(|n| n.parse().ok()),
                _ => {}
            }
        }
        Ok(made)
    }

    /// What a replica tells of itself, and asks of one of our kind.
    fn about(&self) -> Vec<(&'static str, String)> {
        let (shared, config) = (self.shared, &self.shared.config);
        let announced = config.int("replica-announce-port", 0);
        let port = match announced {
            0 => i64::from(config.own_port(config.is_yes("tls-replication"))),
            port => port,
        };
        let mut about = vec![("listening-port", port.to_string())];
        let ip = config.get("replica-announce-ip").filter(|ip| !ip.is_empty());
        about.extend(ip.map(|ip| ("ip-address", ip)));
        about.extend([("capa", "eof".to_owned()), ("capa", "psync2".to_owned())]);
        if shared.managed.get().is_some() {
            about.push(("larder-member", shared.cluster.view().my_id.clone()));
            about.push(("larder-boot", shared.cluster.boot().to_owned()));
        }
        about.push(("version", "9.1.0".to_owned()));
        about.push((CLOCK, "0".to_owned()));
        let replication = &shared.replication;
        if replication.was_primary.load(Ordering::Acquire) && shared.journal.is_active() {
            about.push((COMMON, replication.replid()));
        }
        about
    }

    /// Waits for a primary to begin its own history, for it cuts off who followed before. As soon as it knows of its role it
    /// holds its clients until it has its lease: those that are held here for a planned change are sent to it then.
    /// One that does not know the question is not waited for; its mark ends the hold. Bounded by `REIGN_MS`, or by the hold.
    pub(super) fn await_reign(&self, wire: &mut Wire) -> io::Result<()> {
        let shared = self.shared;
        let Some(engine) = shared.managed.get() else { return Ok(()) };
        let Some(epoch) = engine.follows_in() else { return Ok(()) };
        let until = clock::monotonic_ms() + REIGN_MS;
        while shared.hold.waits() || clock::monotonic_ms() < until {
            let answer = self.ask(wire, &["REPLCONF", REIGN, &epoch.to_string()])?;
            let Some(word) = answer.strip_prefix('+') else { break };
            if word != Reign::Unknown.word() {
                engine.marked(epoch);
            }
            if word == Reign::Begun.word() || self.link.is_stopped() {
                break;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    pub(super) fn psync(&self, wire: &mut Wire) -> io::Result<Answer> {
        let shared = self.shared;
        let end = shared.journal.end();
        let replid = shared.replication.replid();
        let asks = self.link.takeover() == Takeover::Asked;
        // Without a journal the offset says nothing of the data set, and 0 is where everybody begins; but who gives a
        // history away that nobody has written in has it.
        let known = shared.journal.is_active() && (end > 0 || asks);
        let next = (end + 1).to_string();
        let wants = if known { [replid.as_str(), &next] } else { ["?", "-1"] };
        let answer = if asks {
            self.ask(wire, &["PSYNC", wants[0], wants[1], "FAILOVER"])?
        } else {
            self.ask(wire, &["PSYNC", wants[0], wants[1]])?
        };
        if asks && (answer.starts_with("+CONTINUE") || answer.starts_with("+FULLRESYNC")) {
            *lock(&self.link.takeover) = Takeover::Done;
        }
        if let Some(rest) = answer.strip_prefix("+CONTINUE") {
            let id = rest.trim();
            return match id {
                "" => Ok(Answer::Continue(None)),
                id if is_replid(id) => Ok(Answer::Continue(Some(id.to_string()))),
                _ => Err(io::Error::other("CONTINUE with something that is no ID")),
            };
        }
        if let Some(rest) = answer.strip_prefix("+FULLRESYNC ") {
            let mut words = rest.split_whitespace();
            let replid = words.next().filter(|id| is_replid(id));
            let offset = words.next().and_then(|n| n.parse().ok());
            if let (Some(replid), Some(offset)) = (replid, offset) {
                return Ok(Answer::Full(replid.to_string(), offset));
            }
        }
        Err(io::Error::other(format!("PSYNC was answered {answer:?}")))
    }
}
