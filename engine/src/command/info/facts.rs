//! The persistence and replication sections of INFO, from the parts that know.

use std::sync::atomic::Ordering;

use super::Field;
use crate::server::Shared;

pub(super) fn persistence(shared: &Shared) -> Vec<Field> {
    let state = &shared.state;
    let flag = |on: bool| u8::from(on).to_string();
    vec![
        ("loading", flag(state.loading.load(Ordering::Acquire))),
        ("async_loading", "0".into()),
        ("current_cow_peak", "0".into()),
        ("current_cow_size", "0".into()),
        ("current_cow_size_age", "0".into()),
        ("current_fork_perc", "0.00".into()),
        ("current_save_keys_processed", "0".into()),
        ("current_save_keys_total", "0".into()),
        ("rdb_changes_since_last_save", state.dirty.load(Ordering::Relaxed).to_string()),
        ("rdb_bgsave_in_progress", flag(shared.snapshotting.load(Ordering::Acquire))),
        ("rdb_last_save_time", (shared.started_ms / 1000).to_string()),
        ("rdb_last_bgsave_status", "ok".into()),
        ("rdb_last_bgsave_time_sec", "-1".into()),
        ("rdb_current_bgsave_time_sec", "-1".into()),
        ("rdb_saves", "0".into()),
        ("rdb_last_cow_size", "0".into()),
        ("rdb_last_load_keys_expired", "0".into()),
        ("rdb_last_load_keys_loaded", "0".into()),
        ("aof_enabled", flag(shared.config.is_yes("appendonly"))),
        ("aof_rewrite_in_progress", "0".into()),
        ("aof_rewrite_scheduled", "0".into()),
        ("aof_last_rewrite_time_sec", "-1".into()),
        ("aof_current_rewrite_time_sec", "-1".into()),
        ("aof_last_bgrewrite_status", "ok".into()),
        ("aof_rewrites", "0".into()),
        ("aof_rewrites_consecutive_failures", "0".into()),
        ("aof_last_write_status", "ok".into()),
        ("aof_last_cow_size", "0".into()),
        ("module_fork_in_progress", "0".into()),
        ("module_fork_last_cow_size", "0".into()),
    ]
}

pub(super) fn replication(shared: &Shared) -> Vec<Field> {
    let is_replica = shared.state.is_replica.load(Ordering::Acquire);
    let journal = &shared.journal;
    let (start, end) = (journal.start(), journal.end());
    vec![
        ("role", if is_replica { "slave" } else { "master" }.into()),
        ("connected_slaves", "0".into()),
        ("master_failover_state", "no-failover".into()),
        ("master_replid", shared.run_id.clone()),
        ("master_replid2", "0".repeat(40)),
        ("master_repl_offset", end.to_string()),
        ("second_repl_offset", "-1".into()),
        ("repl_backlog_active", u8::from(journal.is_active()).to_string()),
        ("repl_backlog_size", shared.config.get("repl-backlog-size").unwrap_or_default()),
        ("repl_backlog_first_byte_offset", start.to_string()),
        ("repl_backlog_histlen", (end - start.min(end)).to_string()),
    ]
}
