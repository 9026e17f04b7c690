//! Reading from the primary's socket: lines, and the snapshot of a full sync.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::clock;
use crate::stream::Stream;

const LINE_BYTES_MAX: usize = 4096;
const READ_BYTES: usize = 64 * 1024;
const MARK_BYTES: usize = 40;

/// The primary's socket, and what was read from it and not used yet.
pub(crate) struct Wire {
    pub(crate) stream: Stream,
    pub(crate) buffer: Vec<u8>,
    /// Longest silence, milliseconds.
    timeout_ms: u64,
}

impl Wire {
    pub(crate) fn new(stream: Stream, timeout_ms: u64) -> io::Result<Wire> {
        stream.set_write_timeout(Some(Duration::from_millis(timeout_ms)))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(Wire { stream, buffer: Vec::new(), timeout_ms })
    }

    /// Reads some more; `false` when nothing came for a second. The end of the stream is an error.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        let have = self.buffer.len();
        self.buffer.resize(have + READ_BYTES, 0);
        let got = self.stream.read(&mut self.buffer[have..]);
        self.buffer.truncate(have + got.as_ref().map_or(0, |n| *n));
        match got {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the primary hung up")),
            Ok(_) => Ok(true),
            Err(e) if silent(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// As `fill`, until something comes.
    fn need(&mut self, stopped: &dyn Fn() -> bool) -> io::Result<()> {
        let until = clock::monotonic_ms() + self.timeout_ms;
        while !self.fill()? {
            if stopped() {
                return Err(io::Error::other("no longer wanted"));
            }
            if clock::monotonic_ms() > until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the primary is silent"));
            }
        }
        Ok(())
    }

    /// The next line that is not empty (those say only that the primary lives).
    pub(crate) fn line(&mut self, stopped: &dyn Fn() -> bool) -> io::Result<String> {
        loop {
            while let Some(n) = memchr::memchr(b'\n', &self.buffer) {
                let line: Vec<u8> = self.buffer.drain(..=n).collect();
                let text = String::from_utf8_lossy(&line).trim().to_string();
                if !text.is_empty() {
                    return Ok(text);
                }
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(io::Error::other("the primary sent a line that is too long"));
            }
            self.need(stopped)?;
        }
    }

    pub(crate) fn request<W: AsRef<[u8]>>(&mut self, args: &[W]) -> io::Result<()> {
        let mut bytes = Vec::new();
        crate::resp::encode_request(&mut bytes, args);
        self.send(&bytes)
    }

    /// Requests as they go over the wire.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// A bulk string of bounded length, or the error that is replied in its place, without its dash.
    pub(crate) fn bulk(
        &mut self,
        bytes_max: usize,
        stopped: &dyn Fn() -> bool,
    ) -> io::Result<Result<Vec<u8>, String>> {
        let line = self.line(stopped)?;
        if let Some(error) = line.strip_prefix('-') {
            return Ok(Err(error.to_string()));
        }
        let len = line.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
        let len = len.filter(|len| *len <= bytes_max);
        let len = len.ok_or_else(|| io::Error::other("no bulk string where one belongs"))?;
        while self.buffer.len() < len + 2 {
            self.need(stopped)?;
        }
        let bytes = self.buffer[..len].to_vec();
        self.buffer.drain(..len + 2);
        Ok(Ok(bytes))
    }

    /// Copies the snapshot that follows to `sink`; gives its length.
    pub(super) fn snapshot(
        &mut self,
        sink: &mut dyn Write,
        stopped: &dyn Fn() -> bool,
    ) -> io::Result<u64> {
        let line = self.line(stopped)?;
        if let Some(mark) = line.strip_prefix("$EOF:") {
            if mark.len() != MARK_BYTES {
                return Err(io::Error::other("the end mark has not forty digits"));
            }
            return self.until_mark(mark.as_bytes(), sink, stopped);
        }
        let len = line.strip_prefix('$').and_then(|n| n.parse::<u64>().ok());
        let len = len.ok_or_else(|| io::Error::other("no snapshot where one belongs"))?;
        let mut left = len;
        while left > 0 {
            if self.buffer.is_empty() {
                self.need(stopped)?;
            }
            let n = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink.write_all(&self.buffer[..n])?;
            self.buffer.drain(..n);
            left -= n as u64;
        }
        Ok(len)
    }

    /// The primary sends nothing behind the mark before it has an acknowledgement: what came ends with it.
    fn until_mark(
        &mut self,
        mark: &[u8],
        sink: &mut dyn Write,
        stopped: &dyn Fn() -> bool,
    ) -> io::Result<u64> {
        let mut len = 0;
        loop {
            if self.buffer.ends_with(mark) {
                let n = self.buffer.len() - MARK_BYTES;
                sink.write_all(&self.buffer[..n])?;
                self.buffer.clear();
                return Ok(len + n as u64);
            }
            // The end may be the beginning of the mark: kept until more comes.
            let n = self.buffer.len().saturating_sub(MARK_BYTES);
            sink.write_all(&self.buffer[..n])?;
            self.buffer.drain(..n);
            len += n as u64;
            self.need(stopped)?;
        }
    }
}

/// Nothing came within the time of one read.
pub(super) fn silent(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
