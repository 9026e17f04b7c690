//! A connection to another member, on behalf of one client.

use std::io::{self, Write};
use std::time::Duration;

use crate::clock;
use crate::replication::Wire;
use crate::resp::encode_request;
use crate::resp::frame::Frame;
use crate::server::Shared;
use crate::topology::Member;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For each answer before the first request.
const GREETING_MS: u64 = 2_000;
const GREETING_BYTES_MAX: usize = 64 * 1024;

/// There is no reply.
pub(super) struct Broken {
    pub(super) why: String,
    /// The request may have reached the member.
    pub(super) was_sent: bool,
}

pub(super) struct Upstream(Wire);

impl Upstream {
    /// Connects to a member as a member, and becomes this user there, if any.
    pub(super) fn dial(
        shared: &Shared,
        member: &Member,
        user: Option<&str>,
        resp3: bool,
    ) -> io::Result<Self> {
        let stream = shared.dial_member(member, CONNECT_TIMEOUT)?;
        stream.as_a_replica()?;
        let mut this = Self(Wire::new(stream, GREETING_MS)?);
        if let Some(login) = shared.config.login() {
            this.greet(&login)?;
        }
        if resp3 {
            this.greet(&["HELLO", "3"])?;
        }
        if let Some(user) = user {
            this.greet(&["LARDER.AS", user])?;
        }
        Ok(this)
    }

    fn greet<W: AsRef<str> + AsRef<[u8]>>(&mut self, words: &[W]) -> io::Result<()> {
        let mut request = Vec::new();
        encode_request(&mut request, words);
        let until = clock::monotonic_ms() + GREETING_MS;
        let is_late = || clock::monotonic_ms() >= until;
        let said = self.ask(&request, 1, GREETING_BYTES_MAX, &is_late);
        let said = said.map_err(|broken| io::Error::other(broken.why))?;
        match said.first().and_then(|reply| reply.strip_prefix(b"-")) {
            None => Ok(()),
            Some(error) => {
                let (name, error): (&str, _) = (words[0].as_ref(), String::from_utf8_lossy(error));
                Err(io::Error::other(format!("{name} was answered {:?}", error.trim())))
            }
        }
    }

    /// Sends requests and takes so many replies; `is_done`: nobody waits for them any more.
    pub(super) fn ask(
        &mut self,
        request: &[u8],
        replies: usize,
        bytes_max: usize,
        is_done: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<u8>>, Broken> {
        let broken = |why: String| Broken { why, was_sent: true };
        let Self(wire) = self;
        wire.stream.write_all(request).map_err(|e| broken(format!("the connection broke: {e}")))?;
        let mut taken = Vec::with_capacity(replies);
        let mut frame = Frame::default();
        while taken.len() < replies {
            match frame.end(&wire.buffer).map_err(|e| broken(e.to_string()))? {
                Some(end) => {
                    let rest = wire.buffer.split_off(end);
                    taken.push(std::mem::replace(&mut wire.buffer, rest));
                    frame = Frame::default();
                }
                None if wire.buffer.len() > bytes_max => {
                    return Err(broken(
                        "the reply is larger than a client's output buffer may be".into(),
                    ));
                }
                None => {
                    wire.fill().map_err(|e| broken(format!("the connection broke: {e}")))?;
                    if is_done() {
                        return Err(broken("nobody waits for the reply".into()));
                    }
                }
            }
        }
        Ok(taken)
    }
}
