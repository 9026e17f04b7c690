//! The persistence, replication and TLS sections of INFO, from the parts that know.

use std::sync::atomic::Ordering;

use super::Field;
use crate::server::Shared;
use crate::tls::name;

pub(super) fn persistence(shared: &Shared) -> Vec<Field> {
    let info = crate::persist::info(shared);
    let flag = |on: bool| u8::from(on).to_string();
    let status = |ok: bool| String::from(if ok { "ok" } else { "err" });
    let mut fields = vec![
        ("loading", flag(info.loading)),
        ("async_loading", "0".into()),
        ("current_cow_peak", "0".into()),
        ("current_cow_size", info.snapshot_pending_bytes.to_string()),
        ("current_cow_size_age", "0".into()),
        ("current_fork_perc", "0.00".into()),
        ("current_save_keys_processed", "0".into()),
        ("current_save_keys_total", "0".into()),
        ("rdb_changes_since_last_save", info.rdb_changes_since_last_save.to_string()),
        ("rdb_bgsave_in_progress", flag(info.rdb_bgsave_in_progress)),
        ("rdb_last_save_time", info.rdb_last_save_time.to_string()),
        ("rdb_last_bgsave_status", status(info.rdb_last_bgsave_ok)),
        ("rdb_last_bgsave_time_sec", info.rdb_last_bgsave_time_sec.to_string()),
        ("rdb_current_bgsave_time_sec", "-1".into()),
        ("rdb_saves", info.rdb_saves.to_string()),
        ("rdb_last_cow_size", "0".into()),
        ("rdb_last_load_keys_expired", info.rdb_last_load_keys_expired.to_string()),
        ("rdb_last_load_keys_loaded", info.rdb_last_load_keys_loaded.to_string()),
        ("larder_loaded_snapshot_time", info.rdb_last_load_taken_s.to_string()),
        ("aof_enabled", flag(info.aof_enabled)),
        ("aof_rewrite_in_progress", flag(info.aof_rewrite_in_progress)),
        ("aof_rewrite_scheduled", flag(info.aof_rewrite_scheduled)),
        ("aof_last_rewrite_time_sec", info.aof_last_rewrite_time_sec.to_string()),
        ("aof_current_rewrite_time_sec", "-1".into()),
        ("aof_last_bgrewrite_status", status(info.aof_last_bgrewrite_ok)),
        ("aof_rewrites", info.aof_rewrites.to_string()),
        ("aof_rewrites_consecutive_failures", flag(!info.aof_last_bgrewrite_ok)),
        ("aof_last_write_status", status(info.aof_last_write_ok)),
        ("aof_last_cow_size", "0".into()),
        ("module_fork_in_progress", "0".into()),
        ("module_fork_last_cow_size", "0".into()),
    ];
    if info.aof_enabled {
        fields.extend([
            ("aof_current_size", info.aof_current_size.to_string()),
            ("aof_base_size", info.aof_base_size.to_string()),
            ("aof_buffer_length", info.aof_buffer_length.to_string()),
            ("aof_pending_rewrite", flag(info.aof_rewrite_scheduled)),
        ]);
    }
    if info.loading {
        let (done, total) = (info.loading_loaded_bytes, info.loading_total_bytes);
        let (percent, left_s) =
            progress(done, total, crate::clock::unix_ms() / 1000 - info.loading_start_time);
        fields.extend([
            ("loading_start_time", info.loading_start_time.to_string()),
            ("loading_total_bytes", total.to_string()),
            ("loading_rdb_used_mem", "0".into()),
            ("loading_loaded_bytes", done.to_string()),
            ("loading_loaded_perc", format!("{percent:.2}")),
            ("loading_eta_seconds", left_s.to_string()),
        ]);
    }
    fields
}

/// How far a load is, of a hundred, and the seconds that are left at the pace until now; 1 where that is not known yet, as in Redis.
fn progress(done: u64, total: u64, elapsed_s: i64) -> (f64, u64) {
    let percent = if total == 0 { 0.0 } else { done as f64 / total as f64 * 100.0 };
    let left = u128::from(total.saturating_sub(done));
    let left_s = match u128::try_from(elapsed_s) {
        Ok(elapsed) if elapsed > 0 && done > 0 => elapsed * left / u128::from(done),
        _ => 1,
    };
    (percent, u64::try_from(left_s).unwrap_or(u64::MAX))
}

pub(super) fn replication(shared: &Shared) -> String {
    let info = crate::replication::info(shared);
    let mut out = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        out.push_str(&format!("{name}:{value}\r\n"));
    };
    line("role", &if info.is_replica { "slave" } else { "master" });
    if let Some(link) = info.link.filter(|_| info.is_replica) {
        line("master_host", &link.host);
        line("master_port", &link.port);
        line("master_link_status", &if link.up { "up" } else { "down" });
        line("master_last_io_seconds_ago", &link.last_io_s);
        line("master_sync_in_progress", &u8::from(link.syncing));
        line("slave_read_repl_offset", &link.offset);
        line("slave_repl_offset", &link.offset);
        let staleness = shared.replication.fresh.staleness_ms(crate::clock::monotonic_ms());
        line("larder_staleness_ms", &staleness.map_or(-1, |ms| ms as i64));
        if !link.up {
            line("master_link_down_since_seconds", &link.down_s);
        }
        line("slave_priority", &shared.config.int("replica-priority", 100));
        line("slave_read_only", &1);
        line("replica_announced", &1);
    }
    line("connected_slaves", &info.peers.len());
    for (i, peer) in info.peers.iter().enumerate() {
        let value = format!(
            "ip={},port={},state={},offset={},lag={}",
            peer.ip, peer.port, peer.state, peer.offset, peer.lag_s
        );
        line(&format!("slave{i}"), &value);
    }
    if shared.has_council() {
        line("larder_in_sync", &u8::from(shared.cluster.is_in_sync()));
    }
    line("master_failover_state", &shared.replication.failover.state());
    line("master_replid", &info.replid);
    line("master_replid2", &info.replid2);
    line("master_repl_offset", &info.offset);
    line("second_repl_offset", &info.second_offset);
    line("repl_backlog_active", &u8::from(info.backlog_active));
    line("repl_backlog_size", &info.backlog_size);
    line("repl_backlog_first_byte_offset", &info.backlog_first);
    line("repl_backlog_histlen", &info.backlog_len);
    line("larder_dropped_bytes", &info.dropped_bytes);
    line("larder_dropped_writes", &info.dropped_writes);
    out
}

/// Nothing where no port speaks TLS. The first fields are Valkey's.
pub(super) fn tls(out: &mut String, shared: &Shared, now_ms: i64) {
    if shared.tls.accepting().is_none() {
        return;
    }
    out.push_str("# TLS\r\n");
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        out.push_str(&format!("{name}:{value}\r\n"));
    };
    for (whose, certificate) in ["server", "client", "ca"].into_iter().zip(shared.tls.shown()) {
        let Some(certificate) = certificate else { continue };
        let serial = name::serial(&certificate).unwrap_or_default();
        let left_s = name::not_after(&certificate).map_or(0, |end_s| end_s - now_ms / 1000);
        line(&format!("tls_{whose}_cert_serial"), &serial);
        line(&format!("tls_{whose}_cert_expires_in_seconds"), &left_s);
    }
    let stats = &shared.tls.stats;
    for (name, count) in [
        ("larder_tls_handshakes", &stats.done),
        ("larder_tls_handshakes_in_progress", &stats.handshakes),
        ("larder_tls_handshakes_failed", &stats.failed),
        ("larder_tls_handshakes_timed_out", &stats.timed_out),
        ("larder_tls_reloads", &stats.reloads),
        ("larder_tls_reloads_failed", &stats.failed_reloads),
    ] {
        line(name, &count.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::progress;

    #[test]
    fn a_load_tells_how_far_it_is_and_what_is_left() {
        assert_eq!(progress(0, 1_000, 0), (0.0, 1));
        assert_eq!(progress(0, 1_000, 9), (0.0, 1));
        assert_eq!(progress(250, 1_000, 2), (25.0, 6));
        assert_eq!(progress(1_000, 1_000, 8), (100.0, 0));
        // A log whose size is not known; a clock that was set back.
        assert_eq!(progress(7, 0, 3), (0.0, 0));
        assert_eq!(progress(7, 70, -3), (10.0, 1));
    }
}
