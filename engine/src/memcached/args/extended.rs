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
    "ssl_wbuf_size",
];

pub(super) fn read(reading: &mut Reading, value: &str) -> Result<(), String> {
    for option in value.split(',').filter(|o| !o.is_empty()) {
        let (name, argument) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "idle_timeout" => {
                let seconds: u32 = number(argument)?;
                reading.set("timeout", seconds.to_string());
            }
            "ssl_chain_cert" => reading.set("tls-cert-file", argument),
            "ssl_key" => reading.set("tls-key-file", argument),
            "ssl_ca_cert" => reading.set("tls-ca-cert-file", argument),
            "ssl_ciphers" => reading.set("tls-ciphers", argument),
            "ssl_session_cache" => reading.set("tls-session-caching", "yes"),
            "ssl_verify_mode" => reading.set("tls-auth-clients", verify_mode(argument)?),
            "ssl_min_version" => reading.set("tls-protocols", versions_from(argument)?),
            "ssl_keyformat" if argument == "1" => {}
            "ssl_keyformat" => return Err("keys are PEM: only ssl_keyformat=1".into()),
            "ssl_kernel_tls" => return Err("the kernel's TLS is not used".into()),
            name if WITHOUT_EFFECT.contains(&name) => {}
            "no_maxconns_fast" => {
                return Err("connections over the limit are always refused at once".into());
            }
            name => return Err(format!("the option {name} is not supported")),
        }
    }
    Ok(())
}

/// none, request, require, once: the fourth differs from the third for renegotiation only, which there is not.
fn verify_mode(argument: &str) -> Result<&'static str, String> {
    match argument {
        "0" => Ok("no"),
        "1" => Ok("optional"),
        "2" | "3" => Ok("yes"),
        _ => Err("ssl_verify_mode is 0 (none), 1 (request), 2 (require) or 3 (once)".into()),
    }
}

fn versions_from(argument: &str) -> Result<&'static str, String> {
    match argument {
        "tlsv1.2" => Ok("TLSv1.2 TLSv1.3"),
        "tlsv1.3" => Ok("TLSv1.3"),
        _ => Err("ssl_min_version is tlsv1.2 or tlsv1.3".into()),
    }
}
