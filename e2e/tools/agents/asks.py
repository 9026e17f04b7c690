"""What tools ask that no registry has: `asks.py datadog|new_relic|redisinsight`, `asks.py datadog memcached`.

Their requests, and what they read of the answers, are those of their public sources: Datadog's checks `redisdb` and
`mcache`, New Relic's `nri-redis` and `nri-memcached`, and RedisInsight's browser, slow log, profiler and cluster page.
The libraries are those that the checks have, where they are of Python.
"""

import os
import re
import sys

import bmemcached
import redis

host, port = os.environ["LARDER_ADDRESS"].rsplit(":", 1)
password = os.environ.get("LARDER_PASSWORD") or None
is_cluster = os.environ.get("LARDER_CLUSTER") == "yes"

# Of INFO, less what redis itself has had no more since its version 5.
DATADOG = """
    active_defrag_running active_defrag_hits active_defrag_misses active_defrag_key_hits active_defrag_key_misses
    aof_last_rewrite_time_sec aof_rewrite_in_progress connected_clients connected_slaves rejected_connections
    blocked_clients evicted_keys expired_keys latest_fork_usec pubsub_channels pubsub_patterns rdb_bgsave_in_progress
    rdb_changes_since_last_save rdb_last_bgsave_time_sec mem_fragmentation_ratio used_memory used_memory_lua
    used_memory_peak used_memory_rss used_memory_startup used_memory_overhead maxmemory repl_backlog_histlen
    master_repl_offset used_cpu_sys used_cpu_sys_children used_cpu_user used_cpu_user_children keyspace_hits
    keyspace_misses total_commands_processed instantaneous_ops_per_sec
""".split()
NEW_RELIC = """
    uptime_in_seconds connected_clients blocked_clients used_memory used_memory_rss used_memory_peak used_memory_lua
    total_system_memory maxmemory mem_fragmentation_ratio rdb_changes_since_last_save rdb_bgsave_in_progress
    rdb_last_save_time rdb_last_bgsave_time_sec aof_last_rewrite_time_sec total_connections_received
    total_commands_processed total_net_input_bytes total_net_output_bytes rejected_connections sync_full
    sync_partial_ok sync_partial_err expired_keys evicted_keys keyspace_hits keyspace_misses pubsub_channels
    pubsub_patterns latest_fork_usec connected_slaves used_cpu_sys used_cpu_user used_cpu_sys_children
    used_cpu_user_children
""".split()
MEMCACHED = """
    total_items curr_items limit_maxbytes uptime bytes curr_connections max_connections connection_structures threads
    pointer_size rusage_user rusage_system cmd_get cmd_set cmd_flush get_hits get_misses delete_misses delete_hits
    evictions bytes_read bytes_written cas_misses cas_hits cas_badval total_connections listen_disabled_num conn_yields
""".split()
# Those of a memcached whose LRU is not cut into segments, as `stats settings` says of Larder.
ITEMS = """
    evicted evicted_nonzero evicted_time expired_unfetched evicted_unfetched outofmemory tailrepairs reclaimed
    crawler_reclaimed lrutail_reflocked number age
""".split()
SLABS = """
    get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval touch_hits used_chunks chunk_size
    chunks_per_page total_pages total_chunks free_chunks free_chunks_end
""".split()


def connect(port=port, **settings):
    return redis.Redis(host=host, port=int(port), password=password, **settings)


def members():
    """Each of them: checks are aimed at members, not at clusters."""
    ports = [address.rsplit(":", 1)[1] for address in connect().cluster("nodes")] if is_cluster else [port]
    return [connect(port, decode_responses=True) for port in ports]


def own_key(client):
    """A key that this member serves; a replica has none."""
    for number in range(1000 if client.info("replication")["role"] == "master" else 0):
        try:
            client.delete(f"asked:{number}")
            return f"asked:{number}"
        except redis.exceptions.ResponseError:
            pass
    return None


def numbers(info, names):
    absent = [name for name in names if not isinstance(info.get(name), (int, float))]
    assert not absent, absent


def datadog():
    for client in members():
        key = own_key(client)
        client.config_set("slowlog-log-slower-than", 0)
        if key:
            client.set(key, "value")
        info = client.info()
        numbers(info, DATADOG)
        assert re.fullmatch(r"\d+\.\d+\.\d+", str(info["redis_version"])), info["redis_version"]
        assert client.config_get("maxclients")["maxclients"].isdigit()
        assert all("name" in one for one in client.client_list())
        stats = client.info("commandstats")
        assert all(name.startswith("cmdstat_") for name in stats)
        assert all(one["calls"] >= 0 and one["usec_per_call"] >= 0 for one in stats.values())
        entries = client.slowlog_get(int(client.config_get("slowlog-max-len")["slowlog-max-len"]))
        assert all(one["start_time"] > 0 and one["duration"] >= 0 for one in entries)
        if info["role"] == "slave":
            assert info["master_link_status"] == "up", info
            numbers(info, ["slave_repl_offset", "master_last_io_seconds_ago", "master_sync_in_progress"])
        elif is_cluster:
            assert {"ip", "port", "offset"} <= set(info["slave0"]), info["slave0"]
        if key:
            assert info["db0"]["keys"] > 0 and info["db0"]["expires"] >= 0
            assert any(one["command"] == f"SET {key} value".encode() for one in entries), entries
            client.delete(key)
        client.config_set("slowlog-log-slower-than", 10000)
        client.slowlog_reset()


def new_relic():
    for client in members():
        key = own_key(client)
        if key:
            client.rpush(key, "one", "two")
        numbers(client.info(), NEW_RELIC)
        text = client.execute_command("INFO", "replication", "keyspace", "persistence")
        assert {"role", "rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status"} <= set(text)
        settings = client.config_get("*")
        assert len(settings) > 100 and all(isinstance(value, str) for value in settings.values())
        if key:
            client.select(0)
            assert (client.type(key), client.llen(key)) == ("list", 2)
            assert client.info("keyspace")["db0"]["avg_ttl"] >= 0
            client.delete(key)


def stats(client, *of):
    """What the only server says, as text."""
    (told,) = client.stats(*of).values()
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in told.items()}


def by_class(told, pattern):
    """Facts of each class of sizes; all names are of that form."""
    classes = {}
    for name, value in told.items():
        found = re.fullmatch(pattern, name)
        assert found, name
        classes.setdefault(found[1], {})[found[2]] = float(value)
    return classes


def memcached():
    client = bmemcached.Client(f"{host}:{port}")
    assert client.set("asked", "value") and client.get("asked") == "value"
    general = stats(client)
    assert re.match(r"\d+\.\d+\.\d+", general["version"]), general["version"]
    assert not [name for name in MEMCACHED if not float(general[name]) >= 0]
    assert float(general["cmd_get"]) >= float(general["get_hits"]) >= 1 and float(general["limit_maxbytes"]) >= 0
    items = by_class(stats(client, "items"), r"items:(\d+):([a-z_0-9]+)")
    assert items and all(not set(ITEMS) - set(one) for one in items.values()), items
    slabs = stats(client, "slabs")
    assert float(slabs.pop("active_slabs")) >= 1 and float(slabs.pop("total_malloced")) >= 0
    slabs = by_class(slabs, r"(\d+):([a-z_0-9]+)")
    assert slabs and all(not set(SLABS) - set(one) for one in slabs.values()), slabs
    settings = stats(client, "settings")
    assert {"maxbytes", "maxconns", "tcpport", "evictions"} <= set(settings), settings
    client.delete("asked")
    client.disconnect_all()


def redisinsight():
    for client in members():
        key = own_key(client)
        if key:
            browse(client, key)
            watch(client, key)
        assert {"slowlog-max-len", "slowlog-log-slower-than"} <= set(client.config_get("slowlog*"))
        info = client.info()
        numbers(info, ["used_memory", "instantaneous_ops_per_sec", "total_connections_received", "connected_clients"])
        numbers(info, ["instantaneous_input_kbps", "instantaneous_output_kbps", "uptime_in_seconds"])
    if is_cluster:
        shards()


def browse(client, key):
    """The list of keys: names by SCAN, and in pipelines what each of them is."""
    client.hset(key, mapping={"field": "value"})
    client.expire(key, 600)
    cursor, found = 0, []
    while True:
        cursor, names = client.execute_command("SCAN", cursor, "MATCH", "asked:*", "COUNT", 500, "TYPE", "hash")
        found += names
        if int(cursor) == 0:
            break
    assert found == [key], found
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command("TTL", key)
    pipeline.execute_command("memory", "usage", key, "samples", "0")
    pipeline.execute_command("TYPE", key)
    ttl, size, kind = pipeline.execute()
    assert 590 < ttl <= 600 and size > 0 and kind == "hash", (ttl, size, kind)


def watch(client, key):
    """The profiler, and the slow log."""
    other = connect(client.connection_pool.connection_kwargs["port"], decode_responses=True)
    with client.monitor() as monitor:
        other.config_set("slowlog-log-slower-than", 0)
        other.hget(key, "field")
        seen = next(line for line in monitor.listen() if key in line["command"])
        assert seen["command"] == f"HGET {key} field" and seen["db"] == 0 and seen["client_type"] == "tcp", seen
    other.config_set("slowlog-log-slower-than", 10000)
    # An entry: its number, when, how long, of what words, by whom.
    entries = other.execute_command("SLOWLOG", "GET", 50)
    _, when, took_us, words, source, _ = next(one for one in entries if one[3][0] == "HGET")
    assert words == ["HGET", key, "field"] and when > 0 and took_us >= 0 and ":" in source, entries
    other.execute_command("SLOWLOG", "RESET")
    other.delete(key)
    other.close()


def shards():
    """The cluster's page: each shard's slots, members and their health, and the state of the whole."""
    client = connect(decode_responses=True)
    told = client.cluster("shards")
    ends = [end for shard in told for end in shard["slots"]]
    assert len(told) > 1 and sum(ends[1::2]) - sum(ends[::2]) + len(ends) // 2 == 16384, told
    for shard in told:
        assert [node["role"] for node in shard["nodes"]].count("master") == 1, shard
        for node in shard["nodes"]:
            assert {"id", "ip", "port", "replication-offset"} <= set(node) and node["health"] == "online", node
    state = client.cluster("info")
    assert state["cluster_state"] == "ok" and state["cluster_slots_assigned"] == "16384", state
    for name in ["slots_ok", "slots_pfail", "slots_fail", "current_epoch", "my_epoch", "size", "known_nodes"]:
        assert state[f"cluster_{name}"].isdigit(), state
    for name in ["cluster_stats_messages_sent", "cluster_stats_messages_received"]:
        assert state[name].isdigit(), state


if sys.argv[2:] == ["memcached"]:
    memcached()
else:
    {"datadog": datadog, "new_relic": new_relic, "redisinsight": redisinsight}[sys.argv[1]]()
print("as", sys.argv[1], "asks")
