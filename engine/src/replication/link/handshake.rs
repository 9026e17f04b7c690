//! The handshake: who we are, what we have, and what the primary makes of it.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Attempt, Takeover};
use crate::replication::payload::Wire;
use crate::replication::{is_replid, lock, timeout_ms};
use crate::stream::Stream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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

    /// Tells who we are; gives whether the primary vouches for how current its stream is.
    pub(super) fn introduce(&self, wire: &mut Wire) -> io::Result<bool> {
        let config = &self.shared.config;
        let pong = self.ask(wire, &["PING"])?;
        let known = ["+PONG", "-NOAUTH", "-NOPERM", "-ERR operation not permitted"];
        if !known.iter().any(|k| pong.starts_with(k)) {
            return Err(io::Error::other(format!("PING was answered {pong:?}")));
        }
        if let Some(login) = config.login() {
            let answer = self.ask(wire, &login)?;
            if !answer.starts_with('+') {
                return Err(io::Error::other(format!("AUTH was answered {answer:?}")));
            }
        }
        let announced = config.int("replica-announce-port", 0);
        let port = match announced {
            0 => i64::from(config.own_port(config.is_yes("tls-replication"))),
            port => port,
        };
        let port = port.to_string();
        // What the primary does not know it answers with an error, and that is all right.
        self.ask(wire, &["REPLCONF", "listening-port", &port])?;
        if let Some(ip) = config.get("replica-announce-ip").filter(|ip| !ip.is_empty()) {
            self.ask(wire, &["REPLCONF", "ip-address", &ip])?;
        }
        self.ask(wire, &["REPLCONF", "capa", "eof", "capa", "psync2"])?;
        let me = self.shared.cluster.view().my_id.clone();
        if self.shared.managed.get().is_some() {
            self.ask(wire, &["REPLCONF", "larder-member", &me])?;
            self.ask(wire, &["REPLCONF", "larder-boot", self.shared.cluster.boot()])?;
        }
        self.ask(wire, &["REPLCONF", "version", "9.1.0"])?;
        Ok(self.ask(wire, &["REPLCONF", "larder-clock", "0"])?.starts_with('+'))
    }

    /// Asks one of our kind up to where our history is its own too: what is behind is lost if it must be.
    pub(super) fn ask_divergence(&self, wire: &mut Wire) -> io::Result<Option<u64>> {
        let replication = &self.shared.replication;
        if !replication.was_primary.load(Ordering::Acquire) || !self.shared.journal.is_active() {
            return Ok(None);
        }
        let answer = self.ask(wire, &["REPLCONF", "larder-common", &replication.replid()])?;
        Ok(answer.strip_prefix('+').and_then(|n| n.parse().ok()))
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
