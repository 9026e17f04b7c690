//! Scripts by their hash: those of SCRIPT LOAD until SCRIPT FLUSH, those of EVAL as long as there is room.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use sha1::{Digest as _, Sha1};

use super::EVAL_CACHE_MAX;

/// SHA-1 of a script's text.
pub type Hash = [u8; 20];

/// What a script says of itself in its first line, `#!lua flags=...`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Flags {
    pub no_writes: bool,
    pub allow_oom: bool,
    pub allow_stale: bool,
    pub no_cluster: bool,
    pub allow_cross_slot_keys: bool,
    /// There was no such line: what a script may do is as it always was.
    pub is_legacy: bool,
}

/// One script.
pub struct Script {
    pub hash: Hash,
    pub source: Vec<u8>,
    pub flags: Flags,
    pub breadth: Breadth,
}

impl Script {
    /// The hash as 40 hex digits.
    pub fn name(&self) -> String {
        hex(&self.hash)
    }
}

/// Whether a script keeps to its declared keys, as far as it was seen. It is run under all locks until that is known,
/// and for good once it has reached for others.
#[derive(Default)]
pub struct Breadth(AtomicU8);

const UNKNOWN: u8 = 0;
const NARROW: u8 = 1;
const WIDE: u8 = 2;

impl Breadth {
    pub fn is_narrow(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NARROW
    }

    /// It has reached for more than it had declared.
    pub fn widen(&self) {
        self.0.store(WIDE, Ordering::Relaxed);
    }

    /// It has run to its end, and was not seen to reach for more.
    pub fn narrow(&self) {
        let _ = self.0.compare_exchange(UNKNOWN, NARROW, Ordering::Relaxed, Ordering::Relaxed);
    }
}

pub fn hash_of(source: &[u8]) -> Hash {
    Sha1::digest(source).into()
}

pub fn hex(hash: &Hash) -> String {
    hash.iter().fold(String::with_capacity(40), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A hash as clients write it, in either case.
pub fn parse_hash(text: &[u8]) -> Option<Hash> {
    if text.len() != 40 {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut hash = Hash::default();
    for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(hash)
}

/// Reads a shebang line off a script: its flags.
pub fn parse_flags(source: &[u8]) -> Result<Flags, String> {
    if !source.starts_with(b"#!") {
        return Ok(Flags { is_legacy: true, ..Flags::default() });
    }
    let Some(end) = memchr::memchr(b'\n', source) else {
        return Err("ERR Invalid script shebang".into());
    };
    let line = String::from_utf8_lossy(&source[..end]);
    let mut words = line.split(' ').filter(|w| !w.is_empty());
    let engine = words.next().unwrap_or_default();
    if engine != "#!lua" {
        return Err(format!("ERR Unexpected engine in script shebang: {engine}"));
    }
    let mut flags = Flags::default();
    for word in words {
        let Some(list) = word.strip_prefix("flags=") else {
            return Err(format!("ERR Unknown lua shebang option: {word}"));
        };
        for flag in list.split(',').filter(|f| !f.is_empty()) {
            if !flags.set(flag) {
                return Err(format!("ERR Unexpected flag in script shebang: {flag}"));
            }
        }
    }
    Ok(flags)
}

impl Flags {
    /// Names of the flags that are set.
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            (self.no_writes, "no-writes"),
            (self.allow_oom, "allow-oom"),
            (self.allow_stale, "allow-stale"),
            (self.no_cluster, "no-cluster"),
            (self.allow_cross_slot_keys, "allow-cross-slot-keys"),
        ];
        all.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect()
    }

    /// Sets a flag by its name; `false` when there is none of that name.
    pub fn set(&mut self, name: &str) -> bool {
        match name {
            "no-writes" => self.no_writes = true,
            "allow-oom" => self.allow_oom = true,
            "allow-stale" => self.allow_stale = true,
            "no-cluster" => self.no_cluster = true,
            "allow-cross-slot-keys" => self.allow_cross_slot_keys = true,
            _ => return false,
        }
        true
    }
}

struct Kept {
    script: Arc<Script>,
    /// Brought by SCRIPT LOAD: stays.
    is_loaded: bool,
    /// When EVAL used it last.
    used: u64,
}

/// The scripts that EVALSHA finds.
#[derive(Default)]
pub struct Cache {
    scripts: HashMap<Hash, Kept>,
    /// Scripts of EVAL by their last use, oldest first; an entry whose number is not the script's is outdated.
    order: VecDeque<(u64, Hash)>,
    uses: u64,
    evals: usize,
    bytes: usize,
    pub evicted: u64,
}

impl Cache {
    /// A script by its hash.
    pub fn get(&mut self, hash: &Hash) -> Option<Arc<Script>> {
        self.uses += 1;
        let kept = self.scripts.get_mut(hash)?;
        if !kept.is_loaded {
            kept.used = self.uses;
            self.order.push_back((self.uses, *hash));
        }
        let script = kept.script.clone();
        self.tidy();
        Some(script)
    }

    pub fn contains(&self, hash: &Hash) -> bool {
        self.scripts.contains_key(hash)
    }

    /// The text of a script, without counting as a use of it.
    pub fn source(&self, hash: &Hash) -> Option<&[u8]> {
        self.scripts.get(hash).map(|kept| kept.script.source.as_slice())
    }

    /// Takes a script in.
    pub fn put(&mut self, script: Arc<Script>, is_loaded: bool) {
        let hash = script.hash;
        if let Some(kept) = self.scripts.get_mut(&hash) {
            if is_loaded && !kept.is_loaded {
                kept.is_loaded = true;
                self.evals -= 1;
            }
            return;
        }
        self.uses += 1;
        self.bytes += script.source.len() + ENTRY_BYTES;
        self.scripts.insert(hash, Kept { script, is_loaded, used: self.uses });
        if !is_loaded {
            self.evals += 1;
            self.order.push_back((self.uses, hash));
            while self.evals > EVAL_CACHE_MAX && self.evict_one() {}
        }
        self.tidy();
    }

    fn evict_one(&mut self) -> bool {
        while let Some((used, hash)) = self.order.pop_front() {
            let is_oldest = self.scripts.get(&hash).is_some_and(|k| !k.is_loaded && k.used == used);
            if is_oldest && let Some(kept) = self.scripts.remove(&hash) {
                self.bytes -= kept.script.source.len() + ENTRY_BYTES;
                self.evals -= 1;
                self.evicted += 1;
                return true;
            }
        }
        false
    }

    /// Drops what is outdated in the order once it is most of it.
    fn tidy(&mut self) {
        if self.order.len() > 4 * EVAL_CACHE_MAX {
            let scripts = &self.scripts;
            self.order.retain(|(used, hash)| {
                scripts.get(hash).is_some_and(|k| !k.is_loaded && k.used == *used)
            });
        }
    }

    /// Forgets every script.
    pub fn flush(&mut self) {
        let evicted = self.evicted;
        *self = Cache { evicted, uses: self.uses, ..Cache::default() };
    }

    pub fn len(&self) -> usize {
        self.scripts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.scripts.is_empty()
    }

    /// Bytes of the scripts and their entries.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Texts of the scripts that SCRIPT LOAD brought, in the order of their hashes.
    pub fn loaded(&self) -> Vec<Arc<Script>> {
        let mut found: Vec<_> =
            self.scripts.values().filter(|k| k.is_loaded).map(|k| k.script.clone()).collect();
        found.sort_unstable_by_key(|s| s.hash);
        found
    }
}

/// What an entry takes besides the text, bytes.
const ENTRY_BYTES: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Arc<Script> {
        let source = text.as_bytes().to_vec();
        let hash = hash_of(&source);
        Arc::new(Script { hash, source, flags: Flags::default(), breadth: Breadth::default() })
    }

    #[test]
    fn of_the_scripts_of_eval_the_longest_unused_go_and_loaded_ones_stay() {
        let mut cache = Cache::default();
        let loaded = script("loaded");
        cache.put(loaded.clone(), true);
        let kept = script("used again and again");
        cache.put(kept.clone(), false);
        for i in 0..5 * EVAL_CACHE_MAX {
            cache.put(script(&format!("return {i}")), false);
            assert!(cache.get(&kept.hash).is_some());
        }
        assert_eq!(cache.len(), EVAL_CACHE_MAX + 1);
        assert!(cache.contains(&loaded.hash));
        assert!(cache.contains(&kept.hash));
        assert!(!cache.contains(&hash_of(b"return 0")));
        assert_eq!(cache.evicted, 4 * EVAL_CACHE_MAX as u64 + 1);
        assert!(cache.order.len() <= 4 * EVAL_CACHE_MAX);
        cache.flush();
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }

    #[test]
    fn a_shebang_line_says_what_a_script_may_do() {
        let flags = parse_flags(b"#!lua flags=no-writes,allow-stale\nreturn 1").unwrap();
        assert!(flags.no_writes && flags.allow_stale && !flags.allow_oom && !flags.is_legacy);
        assert!(parse_flags(b"return 1").unwrap().is_legacy);
        assert_eq!(parse_flags(b"#!lua"), Err("ERR Invalid script shebang".into()));
        let wrong = parse_flags(b"#!lua flags=foo\n");
        assert_eq!(wrong, Err("ERR Unexpected flag in script shebang: foo".into()));
    }

    #[test]
    fn a_hash_is_read_in_either_case() {
        let hash = hash_of(b"return 1");
        assert_eq!(hex(&hash), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(parse_hash(hex(&hash).to_uppercase().as_bytes()), Some(hash));
        assert_eq!(parse_hash(b"abc"), None);
        assert_eq!(parse_hash(&[b'g'; 40]), None);
    }
}
