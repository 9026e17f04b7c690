//! What `stats` shows: counters of Memcached's operations, and what the server knows of itself.

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Memcached, VERSION};
use crate::server::{Shared, bump};

/// What is counted, each on the loop where it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    CmdGet,
    CmdSet,
    CmdFlush,
    CmdTouch,
    CmdMeta,
    GetHits,
    GetMisses,
    DeleteHits,
    DeleteMisses,
    IncrHits,
    IncrMisses,
    DecrHits,
    DecrMisses,
    CasHits,
    CasMisses,
    CasBadval,
    TouchHits,
    TouchMisses,
    AuthCmds,
    AuthErrors,
    TotalItems,
    StoreTooLarge,
}

pub const COUNTS: usize = Count::StoreTooLarge as usize + 1;

/// Counters of one loop, which alone writes them.
#[repr(align(128))]
#[derive(Default)]
pub struct Counters([AtomicU64; COUNTS]);

impl Counters {
    #[inline]
    pub fn bump(&self, what: Count) {
        bump(&self.0[what as usize], 1);
    }
}

impl Memcached {
    fn raw(&self) -> [u64; COUNTS] {
        std::array::from_fn(|i| self.counters.iter().map(|c| c.0[i].load(Ordering::Relaxed)).sum())
    }

    /// All counters since the last reset.
    pub fn totals(&self) -> [u64; COUNTS] {
        let zero = *self.zero.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.raw();
        std::array::from_fn(|i| now[i].saturating_sub(zero[i]))
    }

    /// Counts from here on. The loops' counters go on: who adds to one need not know.
    pub fn reset(&self) {
        *self.zero.lock().unwrap_or_else(PoisonError::into_inner) = self.raw();
    }
}

/// Names and values.
pub type Lines = Vec<(String, String)>;

/// `None`: there is no such group.
pub fn group(shared: &Shared, words: &[&[u8]], now_ms: i64) -> Option<Lines> {
    Some(match words {
        [] => general(shared, now_ms),
        [b"settings"] => settings(shared),
        [b"items"] => items(shared),
        [b"slabs"] => slabs(shared),
        [b"sizes"] => vec![("sizes_status".into(), "disabled".into())],
        [b"conns"] => conns(shared, now_ms),
        _ => return None,
    })
}

fn general(shared: &Shared, now_ms: i64) -> Lines {
    let memcached = &shared.memcached;
    let totals = memcached.totals();
    let stats = &shared.stats;
    let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
    let hot = shared.config.hot();
    let (user, system) = crate::command::info::process::cpu_seconds();
    let mut lines = Lines::new();
    let mut text = |name: &str, value: String| lines.push((name.to_string(), value));
    text("pid", std::process::id().to_string());
    text("uptime", ((now_ms - shared.started_ms).max(0) / 1000).to_string());
    text("time", (now_ms / 1000).to_string());
    text("version", VERSION.to_string());
    text("larder_version", crate::command::info::LARDER_VERSION.to_string());
    text("pointer_size", usize::BITS.to_string());
    text("rusage_user", format!("{user:.6}"));
    text("rusage_system", format!("{system:.6}"));
    let mut number = |name: &str, value: u64| lines.push((name.to_string(), value.to_string()));
    number("max_connections", hot.maxclients as u64);
    number("curr_connections", shared.clients.len() as u64);
    number("total_connections", get(&stats.connections));
    number("rejected_connections", get(&stats.rejected_connections));
    number("connection_structures", shared.clients.len() as u64);
    number("response_obj_oom", 0);
    number("response_obj_count", 0);
    number("response_obj_bytes", 0);
    number("read_buf_count", shared.loops.len() as u64);
    number("read_buf_bytes", stats.loop_buffers.iter().map(get).sum());
    number("read_buf_bytes_free", 0);
    number("read_buf_oom", 0);
    number("reserved_fds", 0);
    for (name, what) in [
        ("cmd_get", Count::CmdGet),
        ("cmd_set", Count::CmdSet),
        ("cmd_flush", Count::CmdFlush),
        ("cmd_touch", Count::CmdTouch),
        ("cmd_meta", Count::CmdMeta),
        ("get_hits", Count::GetHits),
        ("get_misses", Count::GetMisses),
    ] {
        number(name, totals[what as usize]);
    }
    number("get_expired", 0);
    number("get_flushed", 0);
    for (name, what) in [
        ("delete_misses", Count::DeleteMisses),
        ("delete_hits", Count::DeleteHits),
        ("incr_misses", Count::IncrMisses),
        ("incr_hits", Count::IncrHits),
        ("decr_misses", Count::DecrMisses),
        ("decr_hits", Count::DecrHits),
        ("cas_misses", Count::CasMisses),
        ("cas_hits", Count::CasHits),
        ("cas_badval", Count::CasBadval),
        ("touch_hits", Count::TouchHits),
        ("touch_misses", Count::TouchMisses),
        ("store_too_large", Count::StoreTooLarge),
    ] {
        number(name, totals[what as usize]);
    }
    number("store_no_memory", 0);
    number("auth_cmds", totals[Count::AuthCmds as usize]);
    number("auth_errors", totals[Count::AuthErrors as usize]);
    number("bytes_read", stats.sum(|l| &l.in_bytes));
    number("bytes_written", stats.sum(|l| &l.out_bytes));
    number("limit_maxbytes", hot.maxmemory);
    number("accepting_conns", 1);
    number("listen_disabled_num", 0);
    number("time_in_listen_disabled_us", 0);
    number("threads", shared.loops.len() as u64);
    number("conn_yields", 0);
    number("hash_power_level", 14);
    number("hash_bytes", 0);
    number("hash_is_expanding", 0);
    number("slab_reassign_running", 0);
    number("slabs_moved", 0);
    number("lru_crawler_running", 0);
    number("malloc_fails", 0);
    number("bytes", shared.keyspace.used_memory());
    number("curr_items", shared.keyspace.len(0) as u64);
    number("total_items", totals[Count::TotalItems as usize]);
    number("evictions", get(&stats.evicted_keys));
    number("reclaimed", get(&stats.expired_keys));
    lines
}

fn settings(shared: &Shared) -> Lines {
    let config = &shared.config;
    let hot = config.hot();
    let text = |name: &str| config.get(name).unwrap_or_default();
    let yes = |on: bool| if on { "yes" } else { "no" }.to_string();
    let null = |value: String| if value.is_empty() { "NULL".to_string() } else { value };
    let has_users = !shared.memcached.is_open(&shared.acl);
    let evicts = hot.maxmemory_policy != crate::config::Policy::NoEviction;
    let inter = match text("bind").as_str() {
        "*" | "* -::*" => "NULL".to_string(),
        // As it was written: several are joined by commas, as memcached's `-l` takes them.
        words => words.split_ascii_whitespace().collect::<Vec<_>>().join(","),
    };
    [
        ("maxbytes", hot.maxmemory.to_string()),
        ("maxconns", hot.maxclients.to_string()),
        ("tcpport", text("memcached-port")),
        ("udpport", "0".into()),
        ("inter", inter),
        ("verbosity", if text("loglevel") == "debug" { "1" } else { "0" }.into()),
        ("oldest", "0".into()),
        ("evictions", if evicts { "on" } else { "off" }.into()),
        ("domain_socket", null(text("memcached-unixsocket"))),
        ("umask", text("memcached-unixsocketperm")),
        ("shutdown_command", yes(config.is_yes("memcached-shutdown"))),
        ("growth_factor", "1.25".into()),
        ("chunk_size", "48".into()),
        ("num_threads", shared.loops.len().to_string()),
        ("num_threads_per_udp", "0".into()),
        ("stat_key_prefix", ":".into()),
        ("detail_enabled", "no".into()),
        ("reqs_per_event", "20".into()),
        ("cas_enabled", "yes".into()),
        ("tcp_backlog", text("tcp-backlog")),
        ("binding_protocol", "auto-negotiate".into()),
        ("auth_enabled_sasl", yes(has_users)),
        ("auth_enabled_ascii", null(text("memcached-auth-file"))),
        ("item_size_max", hot.item_size_max.to_string()),
        ("maxconns_fast", "yes".into()),
        ("hashpower_init", "0".into()),
        ("slab_reassign", "no".into()),
        ("slab_automove", "0".into()),
        ("lru_crawler", "no".into()),
        ("idle_timeout", hot.timeout_s.to_string()),
        ("flush_enabled", yes(config.is_yes("memcached-flush"))),
        ("dump_enabled", yes(config.is_yes("memcached-dump-keys"))),
        ("hash_algorithm", "foldhash".into()),
        ("lru_maintainer_thread", "no".into()),
        ("lru_segmented", "no".into()),
        ("ssl_enabled", text("memcached-tls")),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .to_vec()
}

/// One class for all sizes, since memory is not cut into slabs.
fn items(shared: &Shared) -> Lines {
    let count = shared.keyspace.len(0);
    if count == 0 {
        return Lines::new();
    }
    [
        ("number", count as u64),
        ("mem_requested", shared.keyspace.used_memory()),
        ("age", 0),
        ("evicted", shared.stats.evicted_keys.load(Ordering::Relaxed)),
        ("evicted_nonzero", 0),
        ("evicted_time", 0),
        ("outofmemory", 0),
        ("tailrepairs", 0),
        ("reclaimed", shared.stats.expired_keys.load(Ordering::Relaxed)),
        ("expired_unfetched", 0),
        ("evicted_unfetched", 0),
        // There is no crawler, and no list that is locked.
        ("crawler_reclaimed", 0),
        ("crawler_items_checked", 0),
        ("lrutail_reflocked", 0),
    ]
    .map(|(name, value)| (format!("items:1:{name}"), value.to_string()))
    .to_vec()
}

fn slabs(shared: &Shared) -> Lines {
    let totals = shared.memcached.totals();
    let used = shared.keyspace.len(0) as u64;
    let of = |what: Count| totals[what as usize];
    let mut lines: Lines = [
        ("chunk_size", 0),
        ("chunks_per_page", 0),
        ("total_pages", 1),
        ("total_chunks", used),
        ("used_chunks", used),
        ("free_chunks", 0),
        ("free_chunks_end", 0),
        ("get_hits", of(Count::GetHits)),
        ("cmd_set", of(Count::CmdSet)),
        ("delete_hits", of(Count::DeleteHits)),
        ("incr_hits", of(Count::IncrHits)),
        ("decr_hits", of(Count::DecrHits)),
        ("cas_hits", of(Count::CasHits)),
        ("cas_badval", of(Count::CasBadval)),
        ("touch_hits", of(Count::TouchHits)),
    ]
    .map(|(name, value)| (format!("1:{name}"), value.to_string()))
    .to_vec();
    lines.push(("active_slabs".into(), "1".into()));
    lines.push(("total_malloced".into(), shared.keyspace.used_memory().to_string()));
    lines
}

fn conns(shared: &Shared, now_ms: i64) -> Lines {
    let mut lines = Lines::new();
    for info in shared.clients.all().iter().filter(|info| info.is_memcached()) {
        let idle_s = (now_ms - info.last_ms.load(Ordering::Relaxed)).max(0) / 1000;
        // Only the address of a socket in the file system has no port.
        let path = info.laddr.strip_suffix(":0");
        let shown = |addr: &str| match path {
            Some(path) => format!("unix:{path}"),
            None => format!("tcp:{addr}"),
        };
        for (name, value) in [
            ("addr", shown(&info.addr)),
            ("listen_addr", shown(&info.laddr)),
            ("state", "conn_read".to_string()),
            ("secs_since_last_cmd", idle_s.to_string()),
        ] {
            lines.push((format!("{}:{name}", info.id), value));
        }
    }
    lines
}

/// The lines of the text protocol.
pub fn write_text(out: &mut Vec<u8>, lines: &Lines) {
    for (name, value) in lines {
        out.extend_from_slice(format!("STAT {name} {value}\r\n").as_bytes());
    }
    out.extend_from_slice(b"END\r\n");
}

/// A key as `metadump` and `me` write it: what is no plain character as `%XX`.
pub fn uri_encode(out: &mut String, key: &[u8]) {
    for byte in key {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}
