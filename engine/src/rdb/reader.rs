//! Reads a snapshot as a sequence of events.

use std::io::Read;

use super::{Error, ErrorKind, Event, REDIS_READ_MAX, VALKEY_READ, input::Input, opcodes, value};
use crate::types::Limits;

/// Reads a snapshot from any source of bytes, without knowing its length.
pub struct Reader<R> {
    input: Input<R>,
    limits: Limits,
    version: Option<u32>,
    ended: bool,
    skipped: u64,
}

impl<R: Read> Reader<R> {
    /// A reader; nothing is read yet. The limits say which small forms values get.
    pub fn new(source: R, limits: Limits) -> Self {
        Self { input: Input::new(source), limits, version: None, ended: false, skipped: 0 }
    }

    /// The version of the file, once the first event was read; 80 and more are Valkey's.
    pub fn version(&self) -> Option<u32> {
        self.version
    }

    /// How many bytes were used so far.
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// How many keys were left out because they held nothing.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The source, and what was read from it beyond the end of the snapshot.
    pub fn into_parts(self) -> (R, Vec<u8>) {
        self.input.into_parts()
    }

    /// The next event. After [`Event::End`] there is nothing but that.
    pub fn next_event(&mut self) -> Result<Event, Error> {
        if self.version.is_none() {
            self.header()?;
        }
        let version = self.version.unwrap_or_default();
        let (mut expire_at_ms, mut idle, mut freq) = (None, None, None);
        loop {
            if self.ended {
                return Ok(Event::End);
            }
            match self.input.byte()? {
                opcodes::EOF => {
                    self.footer()?;
                    self.ended = true;
                }
                opcodes::SELECT_DB => return Ok(Event::Db(self.input.length()?)),
                opcodes::RESIZE_DB => {
                    let (keys, expires) = (self.input.length()?, self.input.length()?);
                    return Ok(Event::Resize { keys, expires });
                }
                opcodes::AUX => {
                    return Ok(Event::Aux(self.input.string()?, self.input.string()?));
                }
                opcodes::EXPIRE_MS => expire_at_ms = Some(i64::from_le_bytes(self.input.array()?)),
                opcodes::EXPIRE => {
                    let seconds = i32::from_le_bytes(self.input.array()?);
                    expire_at_ms = Some(i64::from(seconds) * 1000);
                }
                opcodes::FREQ => freq = Some(self.input.byte()?),
                opcodes::IDLE => idle = Some(self.input.length()?),
                opcodes::FUNCTION_2 => return Ok(Event::Function(self.input.string()?)),
                opcodes::FUNCTION_PRE_GA => {
                    return self.unsupported("functions of a release candidate (opcode 246)");
                }
                opcodes::MODULE_AUX => self.skip_module_aux()?,
                opcodes::SLOT_INFO => {
                    let slot = self.input.length()?;
                    self.input.length()?;
                    self.input.length()?;
                    if slot >= 16_384 {
                        return self.input.corrupt("a slot beyond 16383");
                    }
                }
                200..=243 => {
                    return self.unsupported("an opcode of one product only (200 to 243)");
                }
                kind => {
                    let key = self.input.string()?;
                    match value::read(&mut self.input, kind, version, &self.limits)? {
                        Some(value) => {
                            return Ok(Event::Key { key, value, expire_at_ms, idle, freq });
                        }
                        None => {
                            self.skipped += 1;
                            (expire_at_ms, idle, freq) = (None, None, None);
                        }
                    }
                }
            }
        }
    }

    fn unsupported<T>(&self, what: &'static str) -> Result<T, Error> {
        Err(self.input.error(ErrorKind::Unsupported(what)))
    }

    fn header(&mut self) -> Result<(), Error> {
        let magic: [u8; 9] = self.input.array()?;
        let version = |digits: &[u8]| -> Option<u32> {
            let all_digits = digits.iter().all(u8::is_ascii_digit);
            std::str::from_utf8(digits).ok().filter(|_| all_digits)?.parse().ok()
        };
        // Old files begin with REDIS0, the sixth byte of VALKEY is a letter: they cannot be mistaken for each other.
        let known = if let Some(digits) = magic.strip_prefix(b"VALKEY") {
            version(digits).filter(|version| VALKEY_READ.contains(version))
        } else {
            let digits = magic.strip_prefix(b"REDIS");
            digits.and_then(version).filter(|version| (1..=REDIS_READ_MAX).contains(version))
        };
        match known {
            Some(version) => {
                self.version = Some(version);
                Ok(())
            }
            None => {
                let magic = String::from_utf8_lossy(&magic).into_owned();
                Err(self.input.error(ErrorKind::Version(magic)))
            }
        }
    }

    fn footer(&mut self) -> Result<(), Error> {
        if self.version < Some(5) {
            return Ok(());
        }
        let computed = self.input.checksum();
        let stated = u64::from_le_bytes(self.input.array()?);
        if stated != 0 && stated != computed {
            return Err(self.input.error(ErrorKind::Checksum));
        }
        Ok(())
    }

    /// What a module saved beside its keys is self-describing, and no use without the module.
    fn skip_module_aux(&mut self) -> Result<(), Error> {
        self.input.length()?;
        self.input.length()?;
        self.input.length()?;
        loop {
            match self.input.length()? {
                0 => return Ok(()),
                1 | 2 => drop(self.input.length()?),
                3 => drop(self.input.array::<4>()?),
                4 => drop(self.input.array::<8>()?),
                5 => drop(self.input.string()?),
                _ => return self.input.corrupt("a module's data of an unknown kind"),
            }
        }
    }
}
