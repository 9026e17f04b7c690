"""A cluster in use by redis-py-cluster, which old programs have: given up since redis-py has a cluster class of its own."""

import os

import rediscluster
from rediscluster import RedisCluster

host, port = os.environ["LARDER_ADDRESS"].rsplit(":", 1)
client = RedisCluster(
    startup_nodes=[{"host": host, "port": port}],
    password=os.environ.get("LARDER_PASSWORD") or None,
    decode_responses=True,
)
# Its keys have a tag that no other program uses: it does not empty the cluster.
# What it asks of every node before it believes that a cluster need not serve all slots.
for node, told in client.config_get("cluster-require-full-coverage").items():
    assert told["cluster-require-full-coverage"] in ("yes", "no"), (node, told)
for number in range(300):
    assert client.set(f"key:{number}", number, ex=600) is True
assert all(client.get(f"key:{number}") == str(number) for number in range(300))
nodes = client.connection_pool.nodes
used = {client.connection_pool.get_node_by_slot(nodes.keyslot(f"key:{number}"))["name"] for number in range(300)}
primaries = {node["name"] for node in nodes.all_masters()}
assert used == primaries and len(primaries) > 1, (used, primaries)
assert client.incr("{old}count") == 1 and client.delete("{old}count") == 1
assert client.mget("key:1", "key:2", "key:none") == ["1", "2", None]
client.hset("{old}user", mapping={"name": "Ada", "born": "1815"})
assert client.hgetall("{old}user") == {"name": "Ada", "born": "1815"}
pipeline = client.pipeline()
for number in range(100):
    pipeline.get(f"key:{number}")
assert pipeline.execute() == [str(number) for number in range(100)]
print("redis-py-cluster", rediscluster.__version__)
