//! INFO: what tools, exporters and clients read of a server, in the ecosystem's fields.

use std::fmt::Write;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Command, Ctx, Group, Keys, all, flag, walk};
use crate::acl::Reason;
use crate::busy;
use crate::clock;
use crate::config::units::human;
use crate::keyspace::Table;
use crate::server::{CommandStats, Shared};

mod facts;
pub(crate) mod process;

pub use process::rss_bytes;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::new("info", -1, flag::LOADING | flag::STALE | flag::WALKS, Keys::None, Group::Server, "1.0.0", "Shows facts and counters of the server.", info),
];

/// The version of the protocol family whose commands this server has; clients switch features on by it.
pub const REDIS_VERSION: &str = "7.4.0";
/// Our own version.
pub const LARDER_VERSION: &str = env!("CARGO_PKG_VERSION");

const DEFAULT: &[&str] = &[
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "modules",
    "errorstats",
    "cluster",
    "tls",
    "keyspace",
];
const EXTRA: &[&str] = &["commandstats", "latencystats"];

fn info(ctx: &mut Ctx<'_, '_>) {
    let mut wanted: Vec<String> = Vec::new();
    for arg in &ctx.args[1..] {
        match String::from_utf8_lossy(arg).to_ascii_lowercase().as_str() {
            "default" => wanted.extend(DEFAULT.iter().map(|s| (*s).to_string())),
            "all" | "everything" => {
                wanted.extend(DEFAULT.iter().chain(EXTRA).map(|s| (*s).to_string()));
            }
            one => wanted.push(one.to_string()),
        }
    }
    if wanted.is_empty() {
        wanted.extend(DEFAULT.iter().map(|s| (*s).to_string()));
    }
    let mut text = String::new();
    for section in DEFAULT[..7].iter().chain(EXTRA).chain(&DEFAULT[7..]) {
        if wanted.iter().any(|w| w == section) {
            let mut part = String::new();
            write_section(&mut part, section, ctx);
            if !text.is_empty() && !part.is_empty() {
                text.push_str("\r\n");
            }
            text.push_str(&part);
        }
    }
    ctx.reply.verbatim(&text);
}

/// The text of a section outside of a command (metrics, reports) or inside one.
fn write_section(out: &mut String, section: &str, ctx: &mut Ctx<'_, '_>) {
    let shared = ctx.shared;
    match section {
        "server" => server(out, shared),
        "clients" => clients(out, shared),
        "memory" => memory(out, shared),
        "persistence" => block(out, "Persistence", &facts::persistence(shared)),
        "stats" => stats(out, shared),
        "replication" => {
            out.push_str("# Replication\r\n");
            out.push_str(&facts::replication(shared));
        }
        "cpu" => cpu(out),
        "modules" => out.push_str("# Modules\r\n"),
        "commandstats" => commandstats(out, shared),
        "latencystats" => latencystats(out, shared),
        "errorstats" => errorstats(out, shared),
        "tls" => facts::tls(out, shared, clock::unix_ms()),
        "cluster" => {
            let enabled = u8::from(shared.cluster.is_enabled());
            block(out, "Cluster", &[("cluster_enabled", enabled.to_string())]);
        }
        _ => keyspace(out, ctx),
    }
}

type Field = (&'static str, String);

fn block(out: &mut String, title: &str, fields: &[Field]) {
    let _ = write!(out, "# {title}\r\n");
    for (name, value) in fields {
        let _ = write!(out, "{name}:{value}\r\n");
    }
}

fn get(counter: &AtomicU64) -> String {
    counter.load(Ordering::Relaxed).to_string()
}

fn server(out: &mut String, shared: &Shared) {
    let now = clock::unix_ms();
    let up_s = (now - shared.started_ms).max(0) / 1000;
    let mode = if shared.cluster.is_enabled() { "cluster" } else { "standalone" };
    let config = &shared.config;
    let file = config.file().map(|f| f.display().to_string()).unwrap_or_default();
    let fields: &[Field] = &[
        ("redis_version", REDIS_VERSION.into()),
        ("larder_version", LARDER_VERSION.into()),
        ("valkey_version", REDIS_VERSION.into()),
        ("server_name", "larder".into()),
        ("redis_git_sha1", "00000000".into()),
        ("redis_git_dirty", "0".into()),
        ("redis_build_id", "0".into()),
        ("redis_mode", mode.into()),
        ("server_mode", mode.into()),
        ("os", process::system()),
        ("arch_bits", usize::BITS.to_string()),
        ("monotonic_clock", "POSIX clock_gettime".into()),
        ("multiplexing_api", "epoll".into()),
        ("atomicvar_api", "c11-builtin".into()),
        ("gcc_version", "0.0.0".into()),
        ("process_id", std::process::id().to_string()),
        ("process_supervised", "no".into()),
        ("run_id", shared.run_id.clone()),
        ("tcp_port", config.own_port(false).to_string()),
        ("server_time_usec", (now * 1000).to_string()),
        ("uptime_in_seconds", up_s.to_string()),
        ("uptime_in_days", (up_s / 86_400).to_string()),
        ("hz", config.int("hz", 10).to_string()),
        ("configured_hz", config.int("hz", 10).to_string()),
        ("lru_clock", crate::keyspace::db::lru_clock(now).to_string()),
        ("executable", process::executable()),
        ("config_file", file),
        ("io_threads_active", u8::from(shared.loops.len() > 1).to_string()),
        ("availability_zone", config.get("larder-zone").unwrap_or_default()),
    ];
    block(out, "Server", fields);
    let bind = config.get("bind").unwrap_or_default();
    let bind: String = bind.split(' ').map(|address| format!(",bind={address}")).collect();
    let ports =
        [("tcp", "port"), ("tls", "tls-port")].map(|(name, port)| (name, config.int(port, 0)));
    for (at, (name, port)) in ports.into_iter().filter(|(_, port)| *port != 0).enumerate() {
        let _ = write!(out, "listener{at}:name={name}{bind},port={port}\r\n");
    }
}

fn clients(out: &mut String, shared: &Shared) {
    let all = shared.clients.all();
    let count = |pick: fn(&crate::session::ClientInfo) -> bool| {
        all.iter().filter(|c| pick(c)).count().to_string()
    };
    let replicas = all.iter().filter(|c| c.is_replica.load(Ordering::Relaxed)).count();
    let pubsub = count(|c| c.listens_to() > 0);
    let output = all.iter().map(|c| c.pending_out.load(Ordering::Relaxed)).max().unwrap_or(0);
    let fields: &[Field] = &[
        ("connected_clients", all.len().saturating_sub(replicas).to_string()),
        ("cluster_connections", "0".into()),
        ("maxclients", shared.config.hot().maxclients.to_string()),
        ("client_recent_max_input_buffer", "0".into()),
        ("client_recent_max_output_buffer", output.to_string()),
        ("blocked_clients", count(|c| c.blocked.load(Ordering::Relaxed))),
        ("tracking_clients", shared.tracking.clients().to_string()),
        ("pubsub_clients", pubsub),
        ("watching_clients", "0".into()),
        ("clients_in_timeout_table", "0".into()),
        ("total_watched_keys", "0".into()),
        ("total_blocking_keys", "0".into()),
        ("total_blocking_keys_on_nokey", "0".into()),
    ];
    block(out, "Clients", fields);
}

fn memory(out: &mut String, shared: &Shared) {
    let used = shared.used_memory();
    let peak = shared.stats.peak_memory.fetch_max(used, Ordering::Relaxed).max(used);
    let rss = rss_bytes();
    let total = process::total_memory();
    let hot = shared.config.hot();
    let data = shared.keyspace.used_memory();
    let buffers = used.saturating_sub(data);
    let backlog = shared.journal.memory();
    // What is counted as used is what was allocated; the allocator's own slack shows in what is resident.
    let [allocated, active, resident] = [used, rss.max(used), rss];
    let ratio = |a: u64, b: u64| format!("{:.2}", if b == 0 { 1.0 } else { a as f64 / b as f64 });
    let policy = shared.config.get("maxmemory-policy").unwrap_or_default();
    let vm = shared.scripts.vm_bytes() as u64;
    let (cached, scripts) = {
        let cache = shared.scripts.cache();
        (cache.len(), cache.bytes() as u64)
    };
    let functions = {
        let libraries = shared.scripts.libraries();
        [libraries.function_count(), libraries.count(), libraries.bytes()].map(|n| n as u64)
    };
    let fields: &[Field] = &[
        ("used_memory", used.to_string()),
        ("used_memory_human", human(used)),
        ("used_memory_rss", rss.to_string()),
        ("used_memory_rss_human", human(rss)),
        ("larder_huge_page_bytes", crate::huge_pages::bytes().to_string()),
        ("used_memory_peak", peak.to_string()),
        ("used_memory_peak_human", human(peak)),
        ("used_memory_peak_perc", format!("{:.2}%", used as f64 * 100.0 / peak.max(1) as f64)),
        ("used_memory_overhead", buffers.to_string()),
        ("used_memory_startup", "0".into()),
        ("used_memory_dataset", data.to_string()),
        ("used_memory_dataset_perc", format!("{:.2}%", data as f64 * 100.0 / used.max(1) as f64)),
        ("allocator_allocated", allocated.to_string()),
        ("allocator_active", active.to_string()),
        ("allocator_resident", resident.to_string()),
        ("total_system_memory", total.to_string()),
        ("total_system_memory_human", human(total)),
        ("used_memory_lua", vm.to_string()),
        ("used_memory_vm_eval", vm.to_string()),
        ("used_memory_lua_human", human(vm)),
        ("used_memory_scripts_eval", scripts.to_string()),
        ("number_of_cached_scripts", cached.to_string()),
        ("number_of_functions", functions[0].to_string()),
        ("number_of_libraries", functions[1].to_string()),
        ("used_memory_vm_functions", "0".into()),
        ("used_memory_vm_total", vm.to_string()),
        ("used_memory_functions", functions[2].to_string()),
        ("used_memory_scripts", (scripts + functions[2]).to_string()),
        ("used_memory_scripts_human", human(scripts + functions[2])),
        ("maxmemory", hot.maxmemory.to_string()),
        ("maxmemory_human", human(hot.maxmemory)),
        ("maxmemory_policy", policy),
        ("allocator_frag_ratio", ratio(active, allocated)),
        ("allocator_frag_bytes", active.saturating_sub(allocated).to_string()),
        ("allocator_rss_ratio", ratio(resident, active)),
        ("allocator_rss_bytes", resident.saturating_sub(active).to_string()),
        ("rss_overhead_ratio", ratio(rss, resident)),
        ("rss_overhead_bytes", rss.saturating_sub(resident).to_string()),
        ("mem_fragmentation_ratio", ratio(rss, used)),
        ("mem_fragmentation_bytes", rss.saturating_sub(used).to_string()),
        ("mem_not_counted_for_evict", "0".into()),
        ("mem_replication_backlog", backlog.to_string()),
        ("mem_total_replication_buffers", backlog.to_string()),
        ("mem_clients_slaves", "0".into()),
        ("mem_clients_normal", buffers.to_string()),
        ("mem_cluster_links", "0".into()),
        ("mem_aof_buffer", "0".into()),
        ("mem_allocator", "jemalloc-5.3.0".into()),
        ("active_defrag_running", "0".into()),
        ("lazyfree_pending_objects", "0".into()),
        ("lazyfreed_objects", "0".into()),
    ];
    block(out, "Memory", fields);
}

fn stats(out: &mut String, shared: &Shared) {
    let s = &shared.stats;
    let [ops, input, output] = rates(shared);
    let kbps = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    let errors: u64 = s.errors.lock().unwrap_or_else(PoisonError::into_inner).values().sum();
    let tracking = shared.tracking.sizes();
    let fields: &[Field] = &[
        ("total_connections_received", get(&s.connections)),
        ("total_commands_processed", s.sum(|l| &l.commands).to_string()),
        ("instantaneous_ops_per_sec", ops.to_string()),
        ("total_net_input_bytes", s.sum(|l| &l.in_bytes).to_string()),
        ("total_net_output_bytes", s.sum(|l| &l.out_bytes).to_string()),
        ("total_net_repl_input_bytes", "0".into()),
        ("total_net_repl_output_bytes", "0".into()),
        ("instantaneous_input_kbps", kbps(input)),
        ("instantaneous_output_kbps", kbps(output)),
        ("instantaneous_input_repl_kbps", "0.00".into()),
        ("instantaneous_output_repl_kbps", "0.00".into()),
        ("rejected_connections", get(&s.rejected_connections)),
        ("sync_full", get(&s.sync_full)),
        ("sync_partial_ok", get(&s.sync_partial_ok)),
        ("sync_partial_err", get(&s.sync_partial_err)),
        ("expired_subkeys", get(&s.expired_fields)),
        ("expired_fields", get(&s.expired_fields)),
        ("expired_keys", get(&s.expired_keys)),
        ("expired_stale_perc", "0.00".into()),
        ("expired_time_cap_reached_count", "0".into()),
        ("expire_cycle_cpu_milliseconds", "0".into()),
        ("evicted_keys", get(&s.evicted_keys)),
        ("evicted_clients", get(&s.evicted_clients)),
        ("evicted_scripts", shared.scripts.cache().evicted.to_string()),
        ("total_eviction_exceeded_time", "0".into()),
        ("current_eviction_exceeded_time", "0".into()),
        ("keyspace_hits", s.sum(|l| &l.hits).to_string()),
        ("keyspace_misses", s.sum(|l| &l.misses).to_string()),
        ("pubsub_channels", shared.pubsub.channel_count().to_string()),
        ("pubsub_patterns", shared.pubsub.patterns().to_string()),
        ("pubsubshard_channels", shared.pubsub.shard_channel_count().to_string()),
        ("latest_fork_usec", "0".into()),
        ("total_forks", "0".into()),
        ("migrate_cached_sockets", "0".into()),
        ("slave_expires_tracked_keys", "0".into()),
        ("active_defrag_hits", "0".into()),
        ("active_defrag_misses", "0".into()),
        ("active_defrag_key_hits", "0".into()),
        ("active_defrag_key_misses", "0".into()),
        ("total_active_defrag_time", "0".into()),
        ("current_active_defrag_time", "0".into()),
        ("tracking_total_keys", tracking[0].to_string()),
        ("tracking_total_items", tracking[1].to_string()),
        ("tracking_total_prefixes", tracking[2].to_string()),
        ("larder_forwarded_requests", get(&s.forwarded)),
        ("larder_slot_lock_waits", shared.keyspace.waits().to_string()),
        ("unexpected_error_replies", get(&s.unexpected_errors)),
        ("total_error_replies", errors.to_string()),
        ("dump_payload_sanitizations", "0".into()),
        ("total_reads_processed", "0".into()),
        ("total_writes_processed", "0".into()),
        ("acl_access_denied_auth", shared.acl.log.refused(Reason::Auth).to_string()),
        ("acl_access_denied_cmd", shared.acl.log.refused(Reason::Command).to_string()),
        ("acl_access_denied_key", shared.acl.log.refused(Reason::Key).to_string()),
        ("acl_access_denied_channel", shared.acl.log.refused(Reason::Channel).to_string()),
        ("acl_access_denied_database", shared.acl.log.refused(Reason::Database).to_string()),
        ("acl_access_denied_tls_cert", shared.acl.log.refused(Reason::Certificate).to_string()),
    ];
    block(out, "Stats", fields);
}

/// Commands, bytes in and bytes out per second, over the samples of the last moments.
pub fn rates(shared: &Shared) -> [u64; 3] {
    let samples = shared.stats.samples.lock().unwrap_or_else(PoisonError::into_inner);
    let (Some(first), Some(last)) = (samples.front(), samples.back()) else { return [0; 3] };
    let ms = last.0.saturating_sub(first.0);
    let rate = |a: u64, b: u64| (b.saturating_sub(a) * 1000).checked_div(ms).unwrap_or(0);
    [rate(first.1, last.1), rate(first.2, last.2), rate(first.3, last.3)]
}

/// Takes a sample for the rates; called ten times a second by one loop.
pub fn sample(shared: &Shared, mono_ms: u64) {
    const SAMPLES: usize = 16;
    let s = &shared.stats;
    let now = (mono_ms, s.sum(|l| &l.commands), s.sum(|l| &l.in_bytes), s.sum(|l| &l.out_bytes));
    s.peak_memory.fetch_max(shared.used_memory(), Ordering::Relaxed);
    let mut samples = s.samples.lock().unwrap_or_else(PoisonError::into_inner);
    if samples.len() >= SAMPLES {
        samples.pop_front();
    }
    samples.push_back(now);
}

fn cpu(out: &mut String) {
    let (user, system) = process::cpu_seconds();
    let fields: &[Field] = &[
        ("used_cpu_sys", format!("{system:.6}")),
        ("used_cpu_user", format!("{user:.6}")),
        ("used_cpu_sys_children", "0.000000".into()),
        ("used_cpu_user_children", "0.000000".into()),
    ];
    block(out, "CPU", fields);
}

fn commandstats(out: &mut String, shared: &Shared) {
    out.push_str("# Commandstats\r\n");
    for (id, command) in all().enumerate() {
        let sum = |pick: fn(&CommandStats) -> &AtomicU64| -> u64 {
            shared.stats.loops.iter().map(|l| pick(&l.calls[id]).load(Ordering::Relaxed)).sum()
        };
        let (calls, usec) = (sum(|c| &c.calls), sum(|c| &c.usec));
        let (rejected, failed) = (sum(|c| &c.rejected), sum(|c| &c.failed));
        if calls + rejected > 0 {
            let _ = write!(
                out,
                "cmdstat_{}:calls={calls},usec={usec},usec_per_call={:.2},rejected_calls={rejected},\
                 failed_calls={failed}\r\n",
                command.name,
                usec as f64 / calls.max(1) as f64,
            );
        }
    }
}

fn latencystats(out: &mut String, shared: &Shared) {
    out.push_str("# Latencystats\r\n");
    let percents = shared.config.get("latency-tracking-info-percentiles").unwrap_or_default();
    for command in all() {
        let sums = super::latency::sums(shared, command);
        if sums.total() == 0 || !shared.config.is_yes("latency-tracking") {
            continue;
        }
        let times = percents.split(' ').filter_map(|p| Some((p, p.parse::<f64>().ok()?)));
        let times: Vec<String> =
            times.map(|(text, p)| format!("p{text}={}.000", sums.percentile(p))).collect();
        let _ = write!(out, "latency_percentiles_usec_{}:{}\r\n", command.name, times.join(","));
    }
}

fn errorstats(out: &mut String, shared: &Shared) {
    out.push_str("# Errorstats\r\n");
    let errors = shared.stats.errors.lock().unwrap_or_else(PoisonError::into_inner);
    for (code, count) in errors.iter() {
        let _ = write!(out, "errorstat_{code}:count={count}\r\n");
    }
}

fn keyspace(out: &mut String, ctx: &mut Ctx<'_, '_>) {
    out.push_str("# Keyspace\r\n");
    for db in 0..ctx.shared.keyspace.databases() {
        let (keys, expires) = if ctx.db.locked().holds_all() {
            let keys = walk::sum(ctx.shared, ctx.db, db, Table::len);
            let expires = walk::sum(ctx.shared, ctx.db, db, |t| t.expires as usize);
            (keys as u64, expires as u64)
        } else if busy::is_in_turn() || ctx.shared.scripts.is_running() {
            // It may hold locks for long: who asks beside it gets the last count.
            ctx.shared.keyspace.recent_count(db)
        } else {
            ctx.shared.keyspace.count(db)
        };
        if keys > 0 {
            let _ = write!(out, "db{db}:keys={keys},expires={expires},avg_ttl=0");
            // Only where there are any: exporters take a line for none that has more fields than they know.
            let timed = ctx.shared.keyspace.timed(db);
            if timed > 0 {
                // Redis's name, and Valkey's.
                let _ = write!(out, ",subexpiry={timed},keys_with_volatile_items={timed}");
            }
            out.push_str("\r\n");
        }
    }
}
