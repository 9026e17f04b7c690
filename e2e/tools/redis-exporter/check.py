"""redis_exporter, unchanged, is aimed at a member and tells Prometheus what happens there: `check.py PROGRAM`."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

PROGRAM = sys.argv[1]
ADDRESS = os.environ["LARDER_ADDRESS"]
PASSWORD = os.environ.get("LARDER_PASSWORD", "")
IS_CLUSTER = os.environ.get("LARDER_CLUSTER") == "yes"


def ask(address, *words, lines=()):
    """One request, or one a line."""
    host, port = address.rsplit(":", 1)
    command = ["redis-cli", "-h", host, "-p", port, *words]
    environment = {**os.environ, "REDISCLI_AUTH": PASSWORD}
    given = "".join(f"{line}\n" for line in lines)
    ran = subprocess.run(command, env=environment, input=given, capture_output=True, check=True, text=True)
    return ran.stdout.strip()


def members():
    if not IS_CLUSTER:
        return [ADDRESS]
    return [line.split()[1].split("@")[0] for line in ask(ADDRESS, "CLUSTER", "NODES").splitlines()]


@contextlib.contextmanager
def exporter(address, key):
    """Figures of a scrape of that member, as often as they are asked for, and of that key."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        web = "127.0.0.1:%d" % free.getsockname()[1]
    options = ["-export-client-list", "-include-config-metrics", "-include-system-metrics", "-check-single-keys", key]
    options += ["-is-cluster"] if IS_CLUSTER else []
    environment = {**os.environ, "REDIS_ADDR": f"redis://{address}", "REDIS_PASSWORD": PASSWORD}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([PROGRAM, "-web.listen-address", web, *options], env=environment, stderr=log)

        def scrape():
            while True:
                assert process.poll() is None, "the exporter ended"
                try:
                    with urllib.request.urlopen(f"http://{web}/metrics", timeout=30) as answer:
                        return parse(answer.read().decode())
                except urllib.error.URLError:
                    time.sleep(0.02)

        try:
            yield scrape
        finally:
            process.terminate()
            process.wait()
        log.seek(0)
        said = log.read()
    # Lines of information are the only ones.
    assert not re.search(r"level=(?!info)", said), said


def parse(text):
    """Values by name and labels, as they are written."""
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def info(address, field):
    return re.search(rf"^{field}:(.*?)\r?$", ask(address, "INFO", "everything"), re.MULTILINE)[1]


def labels_of(metrics, name):
    return next((key for key in metrics if key.startswith(name + "{")), "")


def served_by(address):
    """A key that this primary serves."""
    return next(name for name in map("exported:{}".format, range(1000)) if ask(address, "DEL", name) in "01")


def check(address):
    role = info(address, "role")
    key = served_by(address) if role == "master" else ""
    with exporter(address, key) as scrape:
        first = scrape()
        assert first["redis_up"] == 1 and first['redis_exporter_last_scrape_error{err=""}'] == 0
        version = re.search(r'[{,]version="([^"]*)"', labels_of(first, "redis_exporter_build_info"))[1]
        assert f'role="{role}"' in labels_of(first, "redis_instance_info"), labels_of(first, "redis_instance_info")
        assert first["redis_cluster_enabled"] == IS_CLUSTER
        assert first["redis_config_maxclients"] == float(ask(address, "CONFIG", "GET", "maxclients").split()[-1])
        if role == "slave":
            assert first[labels_of(first, "redis_master_link_up")] == 1
            return version
        if IS_CLUSTER:
            assert first["redis_cluster_slots_ok"] == 16384 and first["redis_connected_slaves"] == 1
            assert first[labels_of(first, "redis_connected_slave_lag_seconds")] >= 0
        traffic(address, key, scrape, first)
    return version


def rise(first, then, name):
    return then[name] - first.get(name, 0)


def traffic(address, key, scrape, first):
    """What a member does between two scrapes is the difference of their figures."""
    ask(address, "SET", key, "x" * 1000)
    # One that it has, and one in the same slot that is never there.
    requests = [f"GET {key}"] * 30 + ["HGET {%s}none field" % key] * 10
    host, port = address.rsplit(":", 1)
    with contextlib.ExitStack() as idle:
        idle.callback(ask, address, "DEL", key)
        for _ in range(5):
            idle.enter_context(socket.create_connection((host, int(port))))
        ask(address, lines=requests)
        then = scrape()
        keys = float(ask(address, "DBSIZE"))
    rises = {
        "redis_keyspace_hits_total": 30,
        "redis_keyspace_misses_total": 10,
        'redis_commands_total{cmd="get"}': 30,
        'redis_commands_total{cmd="hget"}': 10,
    }
    seen = {name: rise(first, then, name) for name in rises}
    assert seen == rises, seen
    for name, least in [
        ("redis_commands_processed_total", 41),
        ("redis_connected_clients", 5),
        ("redis_memory_used_bytes", 1000),
    ]:
        assert rise(first, then, name) >= least, (name, first[name], then[name])
    assert then["redis_memory_used_peak_bytes"] >= then["redis_memory_used_bytes"] > 0
    assert then['redis_db_keys{db="db0"}'] == keys > 0, (keys, then['redis_db_keys{db="db0"}'])
    assert then['redis_key_size{db="db0",key="%s"}' % key] == 1000
    assert any("redis_connected_clients_details" in name and 'name="redis_exporter"' in name for name in then)


versions = {check(address) for address in members()}
print("redis_exporter", *versions)
