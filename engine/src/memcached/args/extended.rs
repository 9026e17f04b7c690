//! `-o`: memcached's options by name.

use super::{Reading, number};

/// What they tune is not in this server, or is always so in it.
const WITHOUT_EFFECT: &[&str] = &[
    "hashpower",
    "hash_algorithm",
    "tail_repair_time",
    "modern",
    "no_modern",
    "maxconns_fast",
    "slab_reassign",
    "no_slab_reassign",
    "slab_automove",
    "slab_automove_ratio",
    "slab_automove_window",
    "slab_automove_freeratio",
    "slab_chunk_max",
    "slab_sizes",
    "no_chunked_items",
    "lru_crawler",
    "no_lru_crawler",
    "lru_crawler_sleep",
    "lru_crawler_tocrawl",
    "lru_maintainer",
    "no_lru_maintainer",
    "hot_lru_pct",
    "warm_lru_pct",
    "hot_max_factor",
    "warm_max_factor",
    "temporary_ttl",
    "no_hashexpand",
    "read_buf_mem_limit",
    "resp_obj_mem_limit",
    "worker_logbuf_size",
    "watcher_logbuf_size",
    "track_sizes",
    "inline_ascii_response",
    "no_inline_ascii_resp",
];

pub(super) fn read(reading: &mut Reading, value: &str) -> Result<(), String> {
    for option in value.split(',').filter(|o| !o.is_empty()) {
        let (name, argument) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "idle_timeout" => {
                let seconds: u32 = number(argument)?;
                reading.set("timeout", seconds.to_string());
            }
            name if WITHOUT_EFFECT.contains(&name) => {}
            "no_maxconns_fast" => {
                return Err("connections over the limit are always refused at once".into());
            }
            name => return Err(format!("the option {name} is not supported")),
        }
    }
    Ok(())
}
