//! The table of directives: every name that a file, the command line and CONFIG know.

/// What values a directive takes.
#[derive(Clone, Copy)]
pub enum Kind {
    Bool,
    Int(i64, i64),
    /// Bytes, with units.
    Memory(i64, i64),
    /// Bytes, or a percentage of maxmemory.
    MemoryOrPercent,
    Choice(&'static [&'static str]),
    Text,
    /// Words behind each other: `bind`.
    Words,
    /// Pairs of seconds and changes; several lines add up.
    Save,
    /// Class, hard limit, soft limit, soft seconds; for several classes.
    OutputLimits,
    /// Letters of classes of keyspace events.
    Events,
    /// Only this server's default: the feature behind it is not there, and asking for it is an error.
    Only,
}

/// Only from the file or the command line.
pub const FIXED: u8 = 1;
/// Changed at run time only with `enable-protected-configs`.
pub const PROTECTED: u8 = 2;
/// Known because programs set it; what it tunes in other servers does not exist in this one.
pub const INERT: u8 = 4;
/// Never printed in logs.
pub const SECRET: u8 = 8;

/// One row.
#[derive(Clone, Copy)]
pub struct Directive {
    pub name: &'static str,
    /// The older name, or nothing.
    pub alias: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub flags: u8,
}

const fn row(
    name: &'static str,
    alias: &'static str,
    kind: Kind,
    default: &'static str,
    flags: u8,
) -> Directive {
    Directive { name, alias, kind, default, flags }
}

use Kind::{
    Bool, Choice, Events, Int, Memory, MemoryOrPercent, Only, OutputLimits, Save, Text, Words,
};

const ANY: i64 = i64::MAX;
const I32: i64 = i32::MAX as i64;
const U32: i64 = u32::MAX as i64;

pub const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];

/// The rows, by what they are about.
#[rustfmt::skip]
pub const DIRECTIVES: &[Directive] = &[
    // Network and clients.
    row("bind", "", Words, "* -::*", FIXED),
    row("port", "", Int(0, 65_535), "6379", FIXED),
    row("tcp-backlog", "", Int(0, I32), "511", FIXED),
    row("protected-mode", "", Bool, "yes", 0),
    row("timeout", "", Int(0, I32), "0", 0),
    row("tcp-keepalive", "", Int(0, I32), "300", 0),
    row("maxclients", "", Int(1, U32), "10000", 0),
    row("maxmemory-clients", "", MemoryOrPercent, "0", INERT),
    row("client-query-buffer-limit", "", Memory(1 << 20, ANY), "1073741824", 0),
    row("proto-max-bulk-len", "", Memory(1 << 20, ANY), "536870912", 0),
    row("client-output-buffer-limit", "", OutputLimits,
        "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", 0),
    row("max-new-connections-per-cycle", "", Int(1, 1000), "10", INERT),
    row("unixsocket", "", Only, "", FIXED),
    // TLS of clients, and of members among each other.
    row("tls-port", "", Int(0, 65_535), "0", FIXED),
    row("tls-cert-file", "", Text, "", 0),
    row("tls-key-file", "", Text, "", 0),
    row("tls-key-file-pass", "", Only, "", SECRET),
    row("tls-client-cert-file", "", Text, "", 0),
    row("tls-client-key-file", "", Text, "", 0),
    row("tls-client-key-file-pass", "", Only, "", SECRET),
    row("tls-dh-params-file", "", Only, "", 0),
    row("tls-ca-cert-file", "", Text, "", 0),
    row("tls-ca-cert-dir", "", Text, "", 0),
    row("tls-auth-clients", "", Choice(&["no", "yes", "optional"]), "yes", 0),
    row("tls-auth-clients-user", "", Choice(&["off", "CN"]), "off", 0),
    row("tls-replication", "", Bool, "no", 0),
    row("tls-cluster", "", Bool, "no", FIXED),
    row("tls-protocols", "", Words, "", 0),
    row("tls-ciphers", "", Text, "", 0),
    row("tls-ciphersuites", "", Text, "", 0),
    row("tls-prefer-server-ciphers", "", Bool, "no", 0),
    row("tls-session-caching", "", Bool, "yes", 0),
    row("tls-session-cache-size", "", Int(0, I32), "20480", 0),
    row("tls-session-cache-timeout", "", Int(0, I32), "300", 0),
    row("tls-auto-reload-interval", "", Int(0, I32), "1", 0),
    row("max-new-tls-connections-per-cycle", "", Int(1, 1000), "1", 0),
    row("io-threads", "", Int(1, 64), "1", FIXED),
    row("io-threads-do-reads", "", Bool, "yes", FIXED | INERT),
    row("prefetch-batch-max-size", "", Int(0, 128), "16", INERT),
    // Memcached clients.
    row("memcached-port", "", Int(0, 65_535), "0", FIXED),
    row("larder-plain-port", "", Int(0, 65_535), "0", FIXED),
    row("larder-plain-tls", "", Bool, "no", FIXED),
    row("memcached-unixsocket", "", Text, "", FIXED),
    row("memcached-unixsocketperm", "", Text, "700", FIXED),
    row("memcached-item-size-max", "", Memory(1024, 1 << 30), "1048576", 0),
    row("memcached-tls", "", Bool, "no", FIXED),
    row("memcached-auth-file", "", Text, "", FIXED),
    row("memcached-shutdown", "", Bool, "no", FIXED),
    row("memcached-flush", "", Bool, "yes", FIXED),
    row("memcached-dump-keys", "", Bool, "yes", FIXED),
    // Access.
    row("requirepass", "", Text, "", SECRET),
    row("masterauth", "", Text, "", SECRET),
    row("masteruser", "", Text, "", 0),
    row("acl-pubsub-default", "", Choice(&["resetchannels", "allchannels"]), "resetchannels", 0),
    row("aclfile", "", Text, "", FIXED),
    row("acllog-max-len", "", Int(0, ANY), "128", 0),
    row("tracking-table-max-keys", "", Int(0, ANY), "1000000", 0),
    row("enable-protected-configs", "", Choice(&["no", "yes", "local"]), "no", FIXED),
    row("enable-debug-command", "", Choice(&["no", "yes", "local"]), "no", FIXED),
    row("enable-module-command", "", Choice(&["no", "yes", "local"]), "no", FIXED),
    // General.
    row("daemonize", "", Only, "no", FIXED),
    row("supervised", "", Choice(&["no", "auto", "systemd", "upstart"]), "no", FIXED | INERT),
    row("pidfile", "", Text, "", FIXED),
    row("logfile", "", Text, "", FIXED),
    row("loglevel", "", Choice(&["debug", "verbose", "notice", "warning", "nothing"]), "notice", 0),
    row("syslog-enabled", "", Only, "no", FIXED),
    row("always-show-logo", "", Bool, "no", FIXED | INERT),
    row("set-proc-title", "", Bool, "yes", FIXED | INERT),
    row("databases", "", Int(1, 16), "16", FIXED),
    row("dir", "", Text, ".", PROTECTED),
    row("hz", "", Int(0, 500), "10", INERT),
    row("dynamic-hz", "", Bool, "yes", INERT),
    row("crash-log-enabled", "", Bool, "yes", INERT),
    row("crash-memcheck-enabled", "", Bool, "yes", INERT),
    row("hide-user-data-from-log", "", Bool, "yes", 0),
    row("enable-debug-assert", "", Bool, "no", FIXED | INERT),
    row("propagation-error-behavior", "", Choice(&["ignore", "panic", "panic-on-replicas"]), "ignore", INERT),
    row("shutdown-timeout", "", Int(0, I32), "10", 0),
    row("shutdown-on-sigterm", "", Text, "default", 0),
    row("shutdown-on-sigint", "", Text, "default", 0),
    row("oom-score-adj", "", Only, "no", 0),
    row("oom-score-adj-values", "", Words, "0 200 800", INERT),
    row("disable-thp", "", Bool, "yes", FIXED | INERT),
    row("locale-collate", "", Text, "", INERT),
    row("notify-keyspace-events", "", Events, "", 0),
    row("import-mode", "", Bool, "no", 0),
    row("key-load-delay", "", Int(-I32, I32), "0", INERT),
    row("rdb-key-save-delay", "", Int(-I32, I32), "0", INERT),
    row("jemalloc-bg-thread", "", Bool, "yes", INERT),
    // Memory.
    row("maxmemory", "", Memory(0, ANY), "0", 0),
    row("maxmemory-policy", "", Choice(POLICIES), "noeviction", 0),
    row("maxmemory-samples", "", Int(1, 64), "5", 0),
    row("maxmemory-eviction-tenacity", "", Int(0, 100), "10", 0),
    row("replica-ignore-maxmemory", "slave-ignore-maxmemory", Bool, "yes", 0),
    row("lfu-log-factor", "", Int(0, I32), "10", 0),
    row("lfu-decay-time", "", Int(0, I32), "1", 0),
    row("active-expire-effort", "", Int(1, 10), "1", INERT),
    row("activedefrag", "", Bool, "no", INERT),
    row("active-defrag-cycle-min", "", Int(1, 99), "1", INERT),
    row("active-defrag-cycle-max", "", Int(1, 99), "25", INERT),
    row("active-defrag-threshold-lower", "", Int(0, 1000), "10", INERT),
    row("active-defrag-threshold-upper", "", Int(0, 1000), "100", INERT),
    row("active-defrag-ignore-bytes", "", Memory(1, ANY), "104857600", INERT),
    row("active-defrag-max-scan-fields", "", Int(1, ANY), "1000", INERT),
    row("activerehashing", "", Bool, "yes", INERT),
    row("lazyfree-lazy-eviction", "", Bool, "yes", INERT),
    row("lazyfree-lazy-expire", "", Bool, "yes", INERT),
    row("lazyfree-lazy-server-del", "", Bool, "yes", INERT),
    row("lazyfree-lazy-user-del", "", Bool, "yes", INERT),
    row("lazyfree-lazy-user-flush", "", Bool, "yes", INERT),
    row("replica-lazy-flush", "slave-lazy-flush", Bool, "yes", INERT),
    row("min-string-size-avoid-copy-reply", "", Int(0, I32), "16384", INERT),
    // Encodings.
    row("hash-max-listpack-entries", "hash-max-ziplist-entries", Int(0, ANY), "512", 0),
    row("hash-max-listpack-value", "hash-max-ziplist-value", Memory(0, ANY), "64", 0),
    row("list-max-listpack-size", "list-max-ziplist-size", Int(-5, I32), "-2", 0),
    row("list-compress-depth", "", Int(0, I32), "0", INERT),
    row("set-max-intset-entries", "", Int(0, ANY), "512", 0),
    row("set-max-listpack-entries", "", Int(0, ANY), "128", 0),
    row("set-max-listpack-value", "", Memory(0, ANY), "64", 0),
    row("zset-max-listpack-entries", "zset-max-ziplist-entries", Int(0, ANY), "128", 0),
    row("zset-max-listpack-value", "zset-max-ziplist-value", Memory(0, ANY), "64", 0),
    row("stream-node-max-bytes", "", Memory(0, ANY), "4096", 0),
    row("stream-node-max-entries", "", Int(0, ANY), "100", 0),
    row("hll-sparse-max-bytes", "", Memory(0, ANY), "3000", 0),
    // Slow log and latency.
    row("slowlog-log-slower-than", "commandlog-execution-slower-than", Int(-1, ANY), "10000", 0),
    row("slowlog-max-len", "commandlog-slow-execution-max-len", Int(0, ANY), "128", 0),
    row("commandlog-request-larger-than", "", Int(-1, ANY), "1048576", 0),
    row("commandlog-large-request-max-len", "", Int(0, ANY), "128", 0),
    row("commandlog-reply-larger-than", "", Int(-1, ANY), "1048576", 0),
    row("commandlog-large-reply-max-len", "", Int(0, ANY), "128", 0),
    row("latency-monitor-threshold", "", Int(0, ANY), "0", 0),
    row("latency-tracking", "", Bool, "yes", 0),
    row("latency-tracking-info-percentiles", "", Words, "50 99 99.9", 0),
    row("busy-reply-threshold", "lua-time-limit", Int(0, ANY), "5000", 0),
    row("larder-script-memory-bytes", "", Memory(1 << 20, ANY), "268435456", 0),
    row("close-on-replica-write", "close-on-slave-write", Bool, "yes", INERT),
    // Persistence.
    row("save", "", Save, "3600 1 300 100 60 10000", 0),
    row("dbfilename", "", Text, "dump.rdb", PROTECTED),
    row("stop-writes-on-bgsave-error", "", Bool, "yes", 0),
    row("rdbcompression", "", Bool, "yes", 0),
    row("rdbchecksum", "", Bool, "yes", FIXED),
    row("rdb-del-sync-files", "", Bool, "no", 0),
    row("rdb-save-incremental-fsync", "", Bool, "yes", INERT),
    row("sanitize-dump-payload", "", Choice(&["no", "yes", "clients"]), "no", 0),
    row("appendonly", "", Bool, "no", 0),
    row("appendfilename", "", Text, "appendonly.aof", FIXED),
    row("appenddirname", "", Text, "appendonlydir", FIXED),
    row("appendfsync", "", Choice(&["everysec", "always", "no"]), "everysec", 0),
    row("no-appendfsync-on-rewrite", "", Bool, "no", 0),
    row("auto-aof-rewrite-percentage", "", Int(0, I32), "100", 0),
    row("auto-aof-rewrite-min-size", "", Memory(0, ANY), "67108864", 0),
    row("aof-load-truncated", "", Bool, "yes", 0),
    row("aof-use-rdb-preamble", "", Bool, "yes", 0),
    row("aof-timestamp-enabled", "", Bool, "no", 0),
    row("aof-rewrite-incremental-fsync", "", Bool, "yes", INERT),
    // Replication.
    row("replicaof", "slaveof", Words, "", FIXED),
    row("replica-serve-stale-data", "slave-serve-stale-data", Bool, "yes", 0),
    row("replica-read-only", "slave-read-only", Bool, "yes", 0),
    row("replica-priority", "slave-priority", Int(0, I32), "100", 0),
    row("replica-announced", "", Bool, "yes", 0),
    row("replica-announce-ip", "slave-announce-ip", Text, "", 0),
    row("replica-announce-port", "slave-announce-port", Int(0, 65_535), "0", 0),
    row("repl-backlog-size", "", Memory(1, ANY), "10485760", 0),
    row("repl-backlog-ttl", "", Int(0, I32), "3600", 0),
    row("repl-timeout", "", Int(1, I32), "60", 0),
    row("repl-ping-replica-period", "repl-ping-slave-period", Int(1, I32), "10", 0),
    row("repl-diskless-sync", "", Bool, "yes", 0),
    row("repl-diskless-sync-delay", "", Int(0, I32), "5", 0),
    row("repl-diskless-sync-period", "", Int(0, I32), "0", INERT),
    row("repl-diskless-sync-max-replicas", "", Int(0, I32), "0", 0),
    row("repl-diskless-load", "", Choice(&["disabled", "on-empty-db", "swapdb", "flush-before-load"]), "disabled", 0),
    row("repl-disable-tcp-nodelay", "", Bool, "no", 0),
    row("repl-rdb-channel", "", Bool, "no", INERT),
    row("min-replicas-to-write", "min-slaves-to-write", Int(0, I32), "0", 0),
    row("min-replicas-max-lag", "min-slaves-max-lag", Int(0, I32), "10", 0),
    // Cluster.
    row("cluster-enabled", "", Bool, "no", FIXED),
    row("cluster-config-file", "", Text, "nodes.conf", FIXED | INERT),
    row("cluster-node-timeout", "", Int(0, ANY), "15000", 0),
    row("cluster-replica-validity-factor", "cluster-slave-validity-factor", Int(0, I32), "10", INERT),
    row("cluster-migration-barrier", "", Int(0, I32), "1", INERT),
    row("cluster-allow-replica-migration", "", Bool, "yes", INERT),
    row("cluster-require-full-coverage", "", Bool, "yes", 0),
    row("cluster-replica-no-failover", "cluster-slave-no-failover", Bool, "no", INERT),
    row("cluster-allow-reads-when-down", "", Bool, "no", INERT),
    row("cluster-allow-pubsubshard-when-down", "", Bool, "yes", INERT),
    row("cluster-manual-failover-timeout", "", Int(1, I32), "5000", INERT),
    row("cluster-slot-stats-enabled", "", Bool, "no", INERT),
    row("cluster-link-sendbuf-limit", "", Memory(0, ANY), "0", INERT),
    row("cluster-port", "", Int(0, 65_535), "0", FIXED),
    row("cluster-announce-ip", "", Text, "", 0),
    row("cluster-announce-hostname", "", Text, "", 0),
    row("cluster-announce-human-nodename", "", Text, "", 0),
    row("cluster-announce-port", "", Int(0, 65_535), "0", 0),
    row("cluster-announce-tls-port", "", Int(0, 65_535), "0", 0),
    row("cluster-announce-bus-port", "", Int(0, 65_535), "0", 0),
    row("cluster-preferred-endpoint-type", "", Choice(&["ip", "hostname", "unknown-endpoint"]), "ip", 0),
    // This server's own.
    row("larder-managed", "", Bool, "no", FIXED),
    row("larder-name", "", Text, "", FIXED),
    row("larder-host", "", Text, "", FIXED),
    row("larder-bus-port", "", Int(0, 65_535), "0", FIXED),
    row("larder-tls-dir", "", Text, "", FIXED),
    row("larder-metrics-port", "", Int(0, 65_535), "0", FIXED),
    row("larder-failure-timeout-ms", "", Int(100, 600_000), "1000", 0),
    row("larder-node", "", Text, "", FIXED),
    row("larder-zone", "", Text, "", FIXED),
    row("larder-durability", "", Choice(&["async", "quorum"]), "async", FIXED),
    row("larder-min-in-sync", "", Int(0, 6), "0", FIXED),
    row("larder-witness", "", Bool, "no", FIXED),
    row("larder-shard", "", Int(-1, 16_383), "-1", FIXED),
    row("larder-max-staleness-ms", "", Int(0, I32), "0", 0),
    row("larder-huge-pages", "", Bool, "yes", 0),
    row("larder-move-p99-ms", "", Int(0, 10_000), "5", 0),
    row("larder-rdb-version", "", Int(0, 80), "0", 0),
    row("larder-config-hash", "", Text, "", 0),
];

/// The row of a name or an alias, in any case.
pub fn find(name: &str) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|d| {
        d.name.eq_ignore_ascii_case(name)
            || (!d.alias.is_empty() && d.alias.eq_ignore_ascii_case(name))
    })
}

impl Directive {
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The canonical text of some words as this directive's value; `old` is the value that is in force.
    pub fn parse(&self, words: &[String], old: &str) -> Result<String, String> {
        let one = || match words {
            [word] => Ok(word.as_str()),
            _ => Err("wrong number of arguments".to_string()),
        };
        match self.kind {
            Bool => {
                let word = one()?.to_ascii_lowercase();
                let fits = word == "yes" || word == "no";
                if fits { Ok(word) } else { Err("argument must be 'yes' or 'no'".into()) }
            }
            Int(min, max) => {
                let n: i64 = one()?
                    .parse()
                    .map_err(|_| "argument couldn't be parsed into an integer".to_string())?;
                in_bounds(n, min, max)
            }
            Memory(min, max) => {
                let n = super::units::parse_memory(one()?)
                    .ok_or("argument must be a memory value".to_string())?;
                in_bounds(n, min, max)
            }
            MemoryOrPercent => {
                let word = one()?;
                let percent = word.strip_suffix('%').map(|n| n.parse::<u8>().ok());
                match percent {
                    Some(Some(n)) if n <= 100 => Ok(word.to_string()),
                    Some(_) => Err("argument must be a memory or percent value".into()),
                    None => super::units::parse_memory(word)
                        .map(|n| n.to_string())
                        .ok_or("argument must be a memory or percent value".into()),
                }
            }
            Choice(names) => {
                let word = one()?;
                names
                    .iter()
                    .find(|n| n.eq_ignore_ascii_case(word))
                    .map(|n| (*n).to_string())
                    .ok_or_else(|| {
                        format!("argument(s) must be one of the following: {}", names.join(", "))
                    })
            }
            Text => one().map(str::to_string),
            Words => Ok(words.join(" ")),
            Events => crate::notify::parse(one()?)
                .map(crate::notify::show)
                .ok_or_else(|| "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_string()),
            Only => {
                let word = one()?;
                let same = word.eq_ignore_ascii_case(self.default);
                let known = same || (self.default.is_empty() && word.is_empty());
                let text = || format!("'{}' is not supported by this server", self.name);
                if known { Ok(self.default.to_string()) } else { Err(text()) }
            }
            Save => super::lists::save(words),
            OutputLimits => super::lists::output_limits(words, old),
        }
    }
}

fn in_bounds(n: i64, min: i64, max: i64) -> Result<String, String> {
    if (min..=max).contains(&n) {
        Ok(n.to_string())
    } else if max == ANY {
        Err(format!("argument must be at least {min}"))
    } else {
        Err(format!("argument must be between {min} and {max} inclusive"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_directive() {
        for d in DIRECTIVES {
            let words: Vec<String> = match d.kind {
                Words | Save | OutputLimits => d.default.split(' ').map(String::from).collect(),
                _ => vec![d.default.to_string()],
            };
            assert_eq!(d.parse(&words, d.default).as_deref(), Ok(d.default), "{}", d.name);
        }
    }

    #[test]
    fn names_and_aliases_are_told_apart() {
        let mut names: Vec<&str> = DIRECTIVES.iter().map(|d| d.name).collect();
        names.extend(DIRECTIVES.iter().map(|d| d.alias).filter(|a| !a.is_empty()));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
