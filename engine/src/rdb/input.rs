//! Bytes to lengths and strings, with the offset and the checksum kept on the way.

use std::io::{self, Read};

use crc_fast::{CrcAlgorithm, Digest};

use super::{Error, ErrorKind, lzf};

const BUFFER: usize = 64 << 10;
/// How much memory a length alone can make us set aside.
const STEP: usize = 1 << 20;
/// No string is longer: what a client can store is far less, and a hash's lengths in memory end there.
const STRING_MAX: u64 = 0xff00_0000 - 1;

/// A length, or one of the special encodings of a string.
enum Length {
    Plain(u64),
    Special(u8),
}

pub(super) struct Input<R> {
    source: R,
    buffer: Vec<u8>,
    /// What of the buffer is used, and up to where the checksum has seen it.
    at: usize,
    summed: usize,
    /// The offset of the buffer's start.
    base: u64,
    digest: Digest,
}

impl<R: Read> Input<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            at: 0,
            summed: 0,
            base: 0,
            digest: Digest::new(CrcAlgorithm::Crc64Redis),
        }
    }

    /// The source, and what was read from it and not used.
    pub(super) fn into_parts(mut self) -> (R, Vec<u8>) {
        self.buffer.drain(..self.at);
        (self.source, self.buffer)
    }

    pub(super) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    pub(super) fn error(&self, kind: ErrorKind) -> Error {
        Error { offset: self.offset(), kind }
    }

    pub(super) fn corrupt<T>(&self, what: &'static str) -> Result<T, Error> {
        Err(self.error(ErrorKind::Corrupt(what)))
    }

    /// The checksum of all that was used so far.
    pub(super) fn checksum(&mut self) -> u64 {
        self.digest.update(&self.buffer[self.summed..self.at]);
        self.summed = self.at;
        self.digest.finalize()
    }

    /// Whether the source has nothing left.
    pub(super) fn is_at_end(&mut self) -> Result<bool, Error> {
        Ok(self.at == self.buffer.len() && !self.fill()?)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        let mut filled = 0;
        while filled < N {
            let piece = self.some(N - filled)?;
            bytes[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        }
        Ok(bytes)
    }

    /// Exactly so many bytes. Memory follows what arrives.
    pub(super) fn bytes(&mut self, len: u64) -> Result<Vec<u8>, Error> {
        if len > STRING_MAX {
            return self.corrupt("a string longer than 4080 MiB");
        }
        let len = len as usize;
        let mut bytes = Vec::with_capacity(len.min(STEP));
        while bytes.len() < len {
            let piece = self.some(len - bytes.len())?;
            bytes.extend_from_slice(piece);
        }
        Ok(bytes)
    }

    /// A length that is no special encoding.
    pub(super) fn length(&mut self) -> Result<u64, Error> {
        match self.raw_length()? {
            Length::Plain(len) => Ok(len),
            Length::Special(_) => self.corrupt("an encoded string where a length belongs"),
        }
    }

    /// A string in any encoding.
    pub(super) fn string(&mut self) -> Result<Vec<u8>, Error> {
        let number = match self.raw_length()? {
            Length::Plain(len) => return self.bytes(len),
            Length::Special(0) => i64::from(i8::from_le_bytes(self.array()?)),
            Length::Special(1) => i64::from(i16::from_le_bytes(self.array()?)),
            Length::Special(2) => i64::from(i32::from_le_bytes(self.array()?)),
            Length::Special(3) => return self.compressed(),
            Length::Special(_) => return self.corrupt("an unknown encoding of a string"),
        };
        let mut text = Vec::new();
        crate::number::write_i64(&mut text, number);
        Ok(text)
    }

    fn compressed(&mut self) -> Result<Vec<u8>, Error> {
        let (compressed, expanded) = (self.length()?, self.length()?);
        let plausible = compressed <= STRING_MAX
            && expanded <= STRING_MAX
            && lzf::is_plausible(compressed as usize, expanded as usize);
        if !plausible {
            return self.corrupt("a compressed string with an impossible length");
        }
        let bytes = self.bytes(compressed)?;
        match lzf::expand(&bytes, expanded as usize) {
            Some(string) => Ok(string),
            None => self.corrupt("a compressed string that does not expand"),
        }
    }

    fn raw_length(&mut self) -> Result<Length, Error> {
        let first = self.byte()?;
        let low = u64::from(first & 0x3f);
        Ok(match first >> 6 {
            0 => Length::Plain(low),
            1 => Length::Plain(low << 8 | u64::from(self.byte()?)),
            2 => match first {
                0x80 => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
                0x81 => Length::Plain(u64::from_be_bytes(self.array()?)),
                _ => return self.corrupt("an unknown form of length"),
            },
            _ => Length::Special(first & 0x3f),
        })
    }

    /// At least one byte and at most so many.
    fn some(&mut self, most: usize) -> Result<&[u8], Error> {
        if self.at == self.buffer.len() && !self.fill()? {
            return Err(self.error(ErrorKind::Truncated));
        }
        let start = self.at;
        self.at = self.buffer.len().min(start.saturating_add(most));
        Ok(&self.buffer[start..self.at])
    }

    /// Reads on, into a buffer that is used up; says whether there was something.
    fn fill(&mut self) -> Result<bool, Error> {
        self.checksum();
        self.base += self.buffer.len() as u64;
        self.buffer.resize(BUFFER, 0);
        (self.at, self.summed) = (0, 0);
        loop {
            match self.source.read(&mut self.buffer) {
                Ok(len) => {
                    self.buffer.truncate(len);
                    return Ok(len > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.clear();
                    return Err(self.error(ErrorKind::Io(error)));
                }
            }
        }
    }
}
