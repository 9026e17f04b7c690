//! Metrics in Prometheus's text form, from the counters that INFO reads.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::clock;
use crate::server::Shared;
use crate::topology::MoveProgress;

/// One series: name, type, help.
type Series = (&'static str, &'static str, &'static str);

/// All series of one member.
pub fn text(shared: &Shared) -> String {
    let stats = &shared.stats;
    let get = |a: &std::sync::atomic::AtomicU64| a.load(Ordering::Relaxed);
    let uptime_s = (clock::unix_ms() - shared.started_ms).max(0) / 1000;
    let is_replica = shared.state.is_replica.load(Ordering::Acquire);
    let rows: [(Series, u64); 19] = [
        (("larder_uptime_seconds", "gauge", "Seconds since the start."), uptime_s as u64),
        (("larder_connected_clients", "gauge", "Open connections."), shared.clients.len() as u64),
        (("larder_memory_used_bytes", "gauge", "Data and buffers."), shared.used_memory()),
        (("larder_memory_max_bytes", "gauge", "maxmemory."), shared.config.hot().maxmemory),
        (("larder_keys", "gauge", "Keys in database 0."), shared.keyspace.recent_count(0).0),
        (("larder_is_replica", "gauge", "1 on a replica."), u64::from(is_replica)),
        (("larder_journal_offset_bytes", "counter", "Journal offset."), shared.journal.end()),
        (("larder_commands_total", "counter", "Commands."), stats.sum(|l| &l.commands)),
        (
            (
                "larder_faults_total",
                "counter",
                "Requests refused for a reason of the server's own.",
            ),
            get(&stats.faults),
        ),
        (("larder_keyspace_hits_total", "counter", "Reads that hit."), stats.sum(|l| &l.hits)),
        (
            ("larder_keyspace_misses_total", "counter", "Reads that missed."),
            stats.sum(|l| &l.misses),
        ),
        (("larder_net_input_bytes_total", "counter", "Bytes read."), stats.sum(|l| &l.in_bytes)),
        (("larder_net_output_bytes_total", "counter", "Bytes sent."), stats.sum(|l| &l.out_bytes)),
        (("larder_connections_total", "counter", "Accepted."), get(&stats.connections)),
        (("larder_expired_keys_total", "counter", "Expired keys."), get(&stats.expired_keys)),
        (
            ("larder_expired_fields_total", "counter", "Expired fields of hashes."),
            get(&stats.expired_fields),
        ),
        (("larder_evicted_keys_total", "counter", "Evicted keys."), get(&stats.evicted_keys)),
        (("larder_sync_full_total", "counter", "Full syncs served."), get(&stats.sync_full)),
        (
            ("larder_writes_dropped_total", "counter", "Writes dropped when stepping down."),
            get(&shared.replication.dropped_writes),
        ),
    ];
    let mut out = String::new();
    for ((name, kind, help), value) in rows {
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    let given = shared.moves_given();
    let sum = |of: fn(&MoveProgress) -> u64| given.iter().map(of).sum::<u64>();
    for (name, help, value) in [
        ("larder_moves_out", "Moves of slots away from here.", given.len() as u64),
        ("larder_moves_out_bytes", "Bytes that these have sent.", sum(|m| m.bytes)),
        ("larder_moves_out_keys", "Keys that these have sent.", sum(|m| m.keys)),
        (
            "larder_moves_out_keys_left",
            "Keys that these have yet to send.",
            sum(|m| m.keys_total.saturating_sub(m.keys)),
        ),
        (
            "larder_moves_out_limited",
            "Those that send slower for the sake of clients.",
            sum(|m| u64::from(m.limit.is_some())),
        ),
    ] {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    }
    let fresh = &shared.replication.fresh;
    if let Some(ms) = fresh.staleness_ms(clock::monotonic_ms()).filter(|_| is_replica) {
        let name = "larder_replica_staleness_milliseconds";
        let help = "What the replica may be behind its primary, at most.";
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {ms}\n");
    }
    out
}
