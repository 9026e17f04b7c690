"""New Relic's agent in an application: requests to Larder are data-store calls: `with_newrelic.py redis|memcached`."""

import os
import sys

# It keeps all that it would send, and asks nobody.
os.environ.update(
    NEW_RELIC_DEVELOPER_MODE="true",
    NEW_RELIC_APP_NAME="larder",
    NEW_RELIC_LICENSE_KEY="0" * 40,
    NEW_RELIC_LOG="stderr",
    NEW_RELIC_LOG_LEVEL="error",
)
for cloud in ("AWS", "AZURE", "AZUREFUNCTION", "GCP", "PCF", "DOCKER", "KUBERNETES"):
    os.environ[f"NEW_RELIC_UTILIZATION_DETECT_{cloud}"] = "false"

import newrelic.agent

newrelic.agent.initialize()

from newrelic.core.agent import agent_instance
from pymemcache.client.base import Client
import redis
from redis.cluster import RedisCluster

host, port = os.environ["LARDER_ADDRESS"].rsplit(":", 1)
password = os.environ.get("LARDER_PASSWORD") or None
application = newrelic.agent.register_application(timeout=20)


def calls():
    """How often each metric of the whole application was counted so far."""
    engine = agent_instance().application("larder")._stats_engine
    return {name: stats.call_count for (name, scope), stats in engine.stats_table.items() if not scope}


def told(product, wanted):
    counted = calls()
    operations = {name: counted.get(f"Datastore/operation/{product}/{name}") for name in wanted}
    assert operations == wanted, counted
    assert counted[f"Datastore/{product}/all"] >= sum(wanted.values()), counted
    return [name for name in counted if name.startswith(f"Datastore/instance/{product}/")]


def of_redis():
    is_cluster = os.environ.get("LARDER_CLUSTER") == "yes"
    client = (RedisCluster if is_cluster else redis.Redis)(host=host, port=int(port), password=password)
    with newrelic.agent.BackgroundTask(application, name="request"):
        client.set("{agent}a", 1)
        assert client.get("{agent}a") == client.get("{agent}a") == b"1"
        client.hset("{agent}h", mapping={"field": "value"})
        client.zadd("{agent}z", {"one": 1})
        client.xadd("{agent}s", {"event": "made"})
    client.close()
    instances = told("Redis", {"set": 1, "get": 2, "hset": 1, "zadd": 1, "xadd": 1})
    if not is_cluster:
        assert [name.rsplit("/", 1)[1] for name in instances] == [port], instances


def of_memcached():
    client = Client((host, int(port)))
    with newrelic.agent.BackgroundTask(application, name="request"):
        client.set("agent", "value")
        assert client.get("agent") == client.get("agent") == b"value"
        assert client.delete("agent", noreply=False)
    client.close()
    instances = told("Memcached", {"set": 1, "get": 2, "delete": 1})
    assert [name.rsplit("/", 1)[1] for name in instances] == [port], instances


{"redis": of_redis, "memcached": of_memcached}[sys.argv[1]]()
print("newrelic", newrelic.agent.__dict__.get("__version__") or newrelic.version)
