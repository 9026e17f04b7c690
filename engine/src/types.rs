//! Values that hold other values: lists, hashes, sets, sorted sets and streams, as pure data structures.
//!
//! ```text
//! Collection -+- List   one listpack ("listpack"), then a deque of listpacks ("quicklist")
//!             +- Hash   one listpack, then a table of field and value pairs ("hashtable")
//!             +- Set    sorted integers ("intset"), one listpack, then a table of members ("hashtable")
//!             +- ZSet   one listpack, then a table of members and a counted B+tree of scores ("skiplist")
//! ```
//!
//! The names in quotes are what OBJECT ENCODING prints. Small values are one block of bytes in the ecosystem's own
//! formats, so that RDB reads and writes them by copy; [`Limits`] says where small ends, and is an argument of each call
//! that may cross that line. A value never goes back to its small form by itself.
//!
//! No clock, no I/O, no randomness of its own: a random choice takes its random numbers from an [`Entropy`] argument.
//! Every structure keeps its size in bytes up to date ([`CollectionRef::memory_usage`]), allocator rounding included.
//!
//! Elements are handed out as [`Item`], because the small forms hold integers as integers. An item is compared with
//! `item.is(bytes)` and printed by `item.bytes(&mut digits)`; [`Item::to_vec`] copies.
//!
//! | type | reads | writes |
//! |---|---|---|
//! | [`List`] | `len get iter range position` | `push_front push_back pop_front pop_back set insert remove trim` |
//! | [`Hash`] | `len get contains iter scan random` | `set remove` |
//! | [`Set`] | `len contains iter scan random random_distinct` | `add remove pop_random` |
//! | [`ZSet`] | `len score rank iter_ranks rank_range_by_score rank_range_by_lex scan random` | `insert incr remove pop_min pop_max remove_ranks` |
//! | [`Stream`] | `log len range get lag group groups` | `append delete trim add_group remove_group change_group` |
//!
//! A type that becomes empty is the caller's to delete, but for streams. Modules in reading order: `item`, `word` (a value in
//! one pointer), `block`, `listpack`, `intset`, `list`, `dict` (the table), `hash`, `set`, `zset`, `stream`. What is held in other types
//! stands beside them: `hll` (in strings) and `geo` (in sorted sets).
mod block;
mod collection;
mod dict;
pub mod geo;
pub mod hash;
pub mod hll;
pub mod intset;
mod item;
pub mod list;
pub mod listpack;
pub mod set;
mod steps;
pub mod stream;
mod text;
mod word;
pub mod zset;

pub use crate::allocator::size_class;
pub use collection::{Collection, CollectionMut, CollectionRef, Limits};
pub use hash::Hash;
pub use intset::Intset;
pub use item::{Digits, Item};
pub use list::List;
pub use listpack::Listpack;
pub use set::Set;
pub use stream::{Stream, StreamId};
pub use zset::{LexBound, ScoreBound, ZSet};

/// A source of random 64-bit numbers.
pub type Entropy<'a> = &'a mut dyn FnMut() -> u64;

/// A number below `bound` (0 when there is none), even enough for a random choice.
fn below(entropy: &mut dyn FnMut() -> u64, bound: usize) -> usize {
    ((u128::from(entropy()) * bound as u128) >> 64) as usize
}

/// Visits `count` of `len` items in one pass, each choice equally likely.
fn sample_pass<T>(
    items: impl Iterator<Item = T>,
    len: usize,
    count: usize,
    entropy: &mut dyn FnMut() -> u64,
    mut visit: impl FnMut(T),
) {
    let mut wanted = count.min(len);
    for (index, item) in items.enumerate() {
        if wanted == 0 {
            break;
        }
        if below(entropy, len - index) < wanted {
            visit(item);
            wanted -= 1;
        }
    }
}
