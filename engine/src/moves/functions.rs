//! Libraries of functions that come with slots: a shard that takes slots in answers the calls that their clients make.
//!
//! ```text
//! target primary                                  source primary
//!   LARDER.MOVE FUNCTIONS bytes-at-most   ->
//!                                         <-      all of its libraries, as FUNCTION DUMP gives them
//!   FUNCTION LOAD of each whose name is not there: in its journal, as a client's would be
//!   LARDER.MOVE id epoch                  ->      the move itself
//! ```
//!
//! That comes before the move's snapshot, so that it is with the replicas before the council is asked for the slots. An own
//! library of the name stays, whatever is in it: who loads on every primary, as Redis wants it, has the last word. What cannot be
//! taken in (a function's name that another library has, too much, a source of an older version) is said in the log, and
//! the slots move all the same: keys are worth more than functions, which are loaded again.

use std::cell::Cell;
use std::io;

use super::target::{CONTROL, Intake, Target};
use super::{acting, goes_on};
use crate::rdb;
use crate::replication::Wire;
use crate::resp::Reply;
use crate::server::Shared;

/// Word in the place of a move's ID.
pub const WORD: &[u8] = b"functions";
/// Most that a target takes, bytes of the sources.
const BYTES_MAX: usize = 64 << 20;
/// A payload is packed, unless it does not get smaller by it: beside the sources a little for each.
const PAYLOAD_BYTES_MAX: usize = BYTES_MAX + (8 << 20);
/// Begin of the error after which the target asks again.
const NOT_YET: &str = "TRYAGAIN";

/// Answers a target that takes so many bytes.
pub fn give(shared: &Shared, bytes_max: usize, reply: &mut Reply) {
    if acting(shared).is_none() {
        return reply.error(&format!("{NOT_YET} this member is not primary now"));
    }
    let libraries = shared.scripts.libraries();
    let bytes = libraries.bytes();
    if bytes > bytes_max {
        let text = format!("ERR the libraries have {bytes} bytes, and {bytes_max} are taken");
        return reply.error(&text);
    }
    let payload = rdb::dump_functions(libraries.all().map(|library| library.source.as_slice()));
    drop(libraries);
    reply.bulk(&payload);
}

/// Whether a move's target has asked for the libraries: once is enough.
#[derive(Default)]
pub(super) struct Taken(Cell<bool>);

impl Target<'_> {
    /// Asks for the source's libraries and takes in those that are not here.
    ///
    /// # Errors
    /// When the move is to begin anew.
    pub(super) fn take_functions(&self, wire: &mut Wire, taken: &Taken) -> io::Result<()> {
        if taken.0.get() {
            return Ok(());
        }
        let id = self.under_way.id;
        let word = String::from_utf8_lossy(WORD);
        wire.request(&[CONTROL, &word, &BYTES_MAX.to_string()])?;
        let stopped = || !goes_on(self.shared, self.under_way, self.epoch);
        match wire.bulk(PAYLOAD_BYTES_MAX, &stopped)? {
            Ok(payload) => match rdb::restore_functions(&payload) {
                Ok(sources) => self.load_all(&sources)?,
                Err(error) => tracing::warn!(id, error, "the source's functions cannot be read"),
            },
            Err(error) if error.starts_with(NOT_YET) => return Err(io::Error::other(error)),
            Err(error) => tracing::warn!(
                id,
                error,
                "slots come without the source's functions: load them into this shard"
            ),
        }
        taken.0.set(true);
        Ok(())
    }

    fn load_all(&self, sources: &[Vec<u8>]) -> io::Result<()> {
        let mut intake = Intake::new(self.shared);
        let has = |name: &[u8]| self.shared.scripts.libraries().contains(name);
        for source in sources {
            // A name that cannot be read is refused by the load itself.
            let name = crate::script::library::parse_name(source).unwrap_or_default();
            if has(&name) {
                continue;
            }
            let Err(error) = self.load(&mut intake, source)? else { continue };
            if let Some(why) = self.shared.state.refuses_write() {
                return Err(io::Error::other(why));
            }
            // Somebody else may have loaded it in between: another move, or a client.
            if !has(&name) {
                let (id, library) = (self.under_way.id, String::from_utf8_lossy(&name));
                tracing::warn!(id, %library, error, "a library of the source is not taken in");
            }
        }
        Ok(())
    }

    /// Loads one library; the inner error is the reply's.
    fn load(&self, intake: &mut Intake<'_>, source: &[u8]) -> io::Result<Result<(), String>> {
        self.execute(intake, &[b"FUNCTION", b"LOAD", source])
    }
}
