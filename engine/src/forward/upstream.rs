//! A connection to another member, on behalf of one client.

use std::io::{self, Write};
use std::time::Duration;

use crate::replication::Wire;
use crate::resp::encode_request;
use crate::resp::frame::Frame;
use crate::server::Shared;
use crate::stream::Stream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For what is said before the first request.
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
    /// Members speak TLS to each other.
    pub(super) fn is_by_tls(shared: &Shared) -> bool {
        shared.config.is_yes("tls-cluster")
    }

    /// Connects to a member as a member, and becomes this user there, if any.
    pub(super) fn dial(
        shared: &Shared,
        host: &str,
        port: u16,
        user: Option<&str>,
        resp3: bool,
    ) -> io::Result<Self> {
        let config = &shared.config;
        let tls = Self::is_by_tls(shared).then(|| shared.tls.dialling(config)).transpose()?;
        let known = shared.connected_at(host, port);
        let stream = Stream::dial(host, port, known, tls, CONNECT_TIMEOUT)?;
        stream.as_a_replica()?;
        let mut this = Self(Wire::new(stream, GREETING_MS)?);
        let password = config.get("masterauth").unwrap_or_default();
        if !password.is_empty() {
            let member = config.get("masteruser").unwrap_or_default();
            let (one, both) = (["AUTH", &password], ["AUTH", &member, &password]);
            this.greet(if member.is_empty() { &one } else { &both })?;
        }
        if resp3 {
            this.greet(&["HELLO", "3"])?;
        }
        if let Some(user) = user {
            this.greet(&["LARDER.AS", user])?;
        }
        Ok(this)
    }

    fn greet(&mut self, words: &[&str]) -> io::Result<()> {
        let mut request = Vec::new();
        encode_request(&mut request, words);
        let said = self.ask(&request, 1, GREETING_BYTES_MAX, &|| false);
        let said = said.map_err(|broken| io::Error::other(broken.why))?;
        match said.first().and_then(|reply| reply.strip_prefix(b"-")) {
            None => Ok(()),
            Some(error) => {
                let error = String::from_utf8_lossy(error);
                Err(io::Error::other(format!("{} was answered {:?}", words[0], error.trim())))
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
