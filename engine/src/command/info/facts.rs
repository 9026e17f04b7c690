//! The persistence and replication sections of INFO, from the parts that know.

use super::Field;
use crate::server::Shared;
use crate::{persist, replication};

pub(super) fn persistence(shared: &Shared) -> Vec<Field> {
    let p = persist::info(shared);
    let flag = |on: bool| u8::from(on).to_string();
    let status = |ok: bool| if ok { "ok" } else { "err" }.to_string();
    let mut fields: Vec<Field> = vec![
        ("loading", flag(p.loading)),
        ("async_loading", "0".into()),
        ("current_cow_peak", "0".into()),
        ("current_cow_size", p.snapshot_pending_bytes.to_string()),
        ("current_cow_size_age", "0".into()),
        ("current_fork_perc", "0.00".into()),
        ("current_save_keys_processed", "0".into()),
        ("current_save_keys_total", "0".into()),
        ("rdb_changes_since_last_save", p.rdb_changes_since_last_save.to_string()),
        ("rdb_bgsave_in_progress", flag(p.rdb_bgsave_in_progress)),
        ("rdb_last_save_time", p.rdb_last_save_time.to_string()),
        ("rdb_last_bgsave_status", status(p.rdb_last_bgsave_ok)),
        ("rdb_last_bgsave_time_sec", p.rdb_last_bgsave_time_sec.to_string()),
        ("rdb_current_bgsave_time_sec", "-1".into()),
        ("rdb_saves", p.rdb_saves.to_string()),
        ("rdb_last_cow_size", "0".into()),
        ("rdb_last_load_keys_expired", p.rdb_last_load_keys_expired.to_string()),
        ("rdb_last_load_keys_loaded", p.rdb_last_load_keys_loaded.to_string()),
        ("aof_enabled", flag(p.aof_enabled)),
        ("aof_rewrite_in_progress", flag(p.aof_rewrite_in_progress)),
        ("aof_rewrite_scheduled", flag(p.aof_rewrite_scheduled)),
        ("aof_last_rewrite_time_sec", p.aof_last_rewrite_time_sec.to_string()),
        ("aof_current_rewrite_time_sec", "-1".into()),
        ("aof_last_bgrewrite_status", status(p.aof_last_bgrewrite_ok)),
        ("aof_rewrites", p.aof_rewrites.to_string()),
        ("aof_rewrites_consecutive_failures", "0".into()),
        ("aof_last_write_status", status(p.aof_last_write_ok)),
        ("aof_last_cow_size", "0".into()),
        ("module_fork_in_progress", "0".into()),
        ("module_fork_last_cow_size", "0".into()),
    ];
    if p.aof_enabled {
        fields.extend([
            ("aof_current_size", p.aof_current_size.to_string()),
            ("aof_base_size", p.aof_base_size.to_string()),
            ("aof_pending_rewrite", "0".into()),
            ("aof_buffer_length", p.aof_buffer_length.to_string()),
            ("aof_pending_bio_fsync", "0".into()),
            ("aof_delayed_fsync", "0".into()),
        ]);
    }
    if p.loading {
        let percent = p.loading_loaded_bytes as f64 * 100.0 / p.loading_total_bytes.max(1) as f64;
        fields.extend([
            ("loading_start_time", p.loading_start_time.to_string()),
            ("loading_total_bytes", p.loading_total_bytes.to_string()),
            ("loading_loaded_bytes", p.loading_loaded_bytes.to_string()),
            ("loading_loaded_perc", format!("{percent:.2}")),
        ]);
    }
    fields
}

pub(super) fn replication(shared: &Shared) -> Vec<(String, String)> {
    let r = replication::info(shared);
    let flag = |on: bool| u8::from(on).to_string();
    let mut fields: Vec<(&str, String)> =
        vec![("role", if r.is_replica { "slave" } else { "master" }.into())];
    if let Some(link) = &r.link {
        fields.extend([
            ("master_host", link.host.clone()),
            ("master_port", link.port.to_string()),
            ("master_link_status", if link.up { "up" } else { "down" }.into()),
            ("master_last_io_seconds_ago", link.last_io_s.to_string()),
            ("master_sync_in_progress", flag(link.syncing)),
            ("slave_read_repl_offset", link.offset.to_string()),
            ("slave_repl_offset", link.offset.to_string()),
        ]);
        if !link.up {
            fields.push(("master_link_down_since_seconds", link.down_s.to_string()));
        }
    }
    if r.is_replica {
        let priority = shared.config.get("replica-priority").unwrap_or_default();
        fields.extend([
            ("slave_priority", priority),
            ("slave_read_only", "1".into()),
            ("replica_announced", flag(shared.config.is_yes("replica-announced"))),
        ]);
    }
    fields.push(("connected_slaves", r.peers.len().to_string()));
    let mut fields: Vec<(String, String)> =
        fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    for (i, peer) in r.peers.iter().enumerate() {
        let line = format!(
            "ip={},port={},state={},offset={},lag={}",
            peer.ip, peer.port, peer.state, peer.offset, peer.lag_s
        );
        fields.push((format!("slave{i}"), line));
    }
    let tail = [
        ("master_failover_state", "no-failover".to_string()),
        ("master_replid", r.replid),
        ("master_replid2", r.replid2),
        ("master_repl_offset", r.offset.to_string()),
        ("second_repl_offset", r.second_offset.to_string()),
        ("repl_backlog_active", flag(r.backlog_active)),
        ("repl_backlog_size", r.backlog_size.to_string()),
        ("repl_backlog_first_byte_offset", r.backlog_first.to_string()),
        ("repl_backlog_histlen", r.backlog_len.to_string()),
        ("larder_dropped_writes", r.dropped_writes.to_string()),
    ];
    fields.extend(tail.map(|(name, value)| (name.to_string(), value)));
    fields
}
