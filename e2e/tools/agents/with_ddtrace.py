"""Datadog's tracer in an application: each request of it to Larder is a span: `with_ddtrace.py redis|memcached`."""

import os
import sys

# There is no agent to send to, and nothing else to call.
os.environ.update(
    DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
    DD_REMOTE_CONFIGURATION_ENABLED="false",
    DD_CRASHTRACKING_ENABLED="false",
    DD_TRACE_STARTUP_LOGS="false",
)

import ddtrace
from ddtrace.trace import TraceFilter, tracer

ddtrace.patch(redis=True, pymemcache=True)

from pymemcache.client.base import Client
import redis
from redis.cluster import RedisCluster

host, port = os.environ["LARDER_ADDRESS"].rsplit(":", 1)
password = os.environ.get("LARDER_PASSWORD") or None


class Keep(TraceFilter):
    """Keeps the spans of each trace here; none goes on to an agent."""

    spans = []

    def process_trace(self, trace):
        self.spans.extend(trace)
        return None


def of_redis():
    is_cluster = os.environ.get("LARDER_CLUSTER") == "yes"
    client = (RedisCluster if is_cluster else redis.Redis)(host=host, port=int(port), password=password)
    with tracer.trace("request"):
        client.set("{traced}a", 1)
        assert client.get("{traced}a") == b"1"
        client.hset("{traced}h", mapping={"field": "value"})
        pipeline = client.pipeline()
        pipeline.get("{traced}a").hgetall("{traced}h")
        assert pipeline.execute() == [b"1", {b"field": b"value"}]
        try:
            client.lpush("{traced}a", "x")
            raise AssertionError("a list was made of a string")
        except redis.ResponseError:
            pass
    client.close()
    spans = [span for span in Keep.spans if span.get_tag("db.system") == "redis"]
    # A connection's own requests (HELLO, CLIENT SETINFO, what a cluster is asked for) may be among them.
    mine = [span for span in spans if "{traced}" in (span.get_tag("redis.raw_command") or "")]
    told = [span.get_tag("redis.raw_command").split("\n")[0] for span in mine]
    # It does not see what a pipeline of the cluster's class has.
    piped = [] if is_cluster else ["GET {traced}a"]
    wanted = ["SET {traced}a 1", "GET {traced}a", "HSET {traced}h field value", *piped, "LPUSH {traced}a x"]
    assert told == wanted, told
    assert [span.error for span in mine] == [0] * (len(wanted) - 1) + [1]
    assert mine[-1].get_tag("error.message").startswith("WRONGTYPE"), mine[-1].get_tags()
    if not is_cluster:
        assert {span.get_metric("network.destination.port") for span in mine} == {float(port)}


def of_memcached():
    client = Client((host, int(port)))
    with tracer.trace("request"):
        client.set("traced", "value")
        assert client.get("traced") == b"value"
        assert client.get_many(["traced", "absent"]) == {"traced": b"value"}
        assert client.delete("traced", noreply=False)
    client.close()
    spans = [span for span in Keep.spans if span.get_tag("db.system") == "memcached"]
    assert [span.resource for span in spans] == ["set", "get", "get_many", "delete"], spans
    assert not any(span.error for span in spans)
    assert {span.get_metric("network.destination.port") for span in spans} == {float(port)}


tracer.configure(trace_processors=[Keep()])
{"redis": of_redis, "memcached": of_memcached}[sys.argv[1]]()
print("ddtrace", ddtrace.__version__)
