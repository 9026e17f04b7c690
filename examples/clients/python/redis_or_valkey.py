"""A cache in use by redis-py, or by valkey-py, which has the same interface: `redis_or_valkey.py redis|valkey`."""

import importlib
import os
import sys
import threading

library = importlib.import_module(sys.argv[1])
host, port = os.environ["LARDER_ADDRESS"].rsplit(":", 1)
password = os.environ.get("LARDER_PASSWORD") or None
is_cluster = os.environ.get("LARDER_CLUSTER") == "yes"


def connect(protocol):
    settings = dict(host=host, port=int(port), password=password, decode_responses=True, protocol=protocol)
    if not is_cluster:
        plain = library.Redis if sys.argv[1] == "redis" else library.Valkey
        return plain(**settings)
    cluster = importlib.import_module(f"{sys.argv[1]}.cluster")
    return (cluster.RedisCluster if sys.argv[1] == "redis" else cluster.ValkeyCluster)(**settings)


def use(client):
    for number in range(300):
        assert client.set(f"key:{number}", number, ex=600)
    assert all(client.get(f"key:{number}") == str(number) for number in range(300))
    assert 0 < client.ttl("key:7") <= 600
    assert client.incrby("{a}count", 5) == 5 and client.incr("{a}count") == 6
    assert client.set("{a}once", "1", nx=True) and client.set("{a}once", "2", nx=True) is None

    client.hset("{a}user", mapping={"name": "Ada", "born": "1815"})
    assert client.hgetall("{a}user") == {"name": "Ada", "born": "1815"}
    client.rpush("{a}queue", "one", "two", "three")
    assert client.lrange("{a}queue", 0, -1) == ["one", "two", "three"]
    assert client.blpop(["{a}queue"], timeout=1)[1] == "one"
    client.sadd("{a}set", "x", "y", "z")
    assert set(client.smembers("{a}set")) == {"x", "y", "z"}
    client.zadd("{a}board", {"ann": 3, "bob": 1, "cid": 2})
    assert client.zrange("{a}board", 0, -1) == ["bob", "cid", "ann"]
    first = client.xadd("{a}stream", {"event": "made"})
    assert client.xrange("{a}stream")[0] == (first, {"event": "made"})
    client.xgroup_create("{a}stream", "workers", id="0")
    assert client.xreadgroup("workers", "one", {"{a}stream": ">"}, count=1)
    assert client.xack("{a}stream", "workers", first) == 1

    pipeline = client.pipeline()
    for number in range(100):
        pipeline.incr(f"{{a}}piped:{number % 10}")
    assert pipeline.execute()[-1] == 10
    script = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1]) * 2")
    assert script(keys=["{a}scripted"], args=[21]) == 42
    assert set(client.scan_iter(match="key:1?", count=50)) == {f"key:1{digit}" for digit in range(10)}
    try:
        client.lpush("{a}count", "x")
        raise AssertionError("a list was made of a number")
    except library.exceptions.ResponseError as error:
        assert "WRONGTYPE" in str(error)


def transact(client):
    with client.pipeline(transaction=True) as pipeline:
        pipeline.watch("{a}count")
        value = int(pipeline.get("{a}count"))
        pipeline.multi()
        pipeline.set("{a}count", value * 2)
        assert pipeline.execute() == [True]
    assert client.get("{a}count") == "12"


def listen(client):
    """What is published is heard; in a cluster, on the member that it is published on."""
    listener = client.pubsub()
    listener.subscribe("news")
    heard = threading.Event()
    thread = None
    for _ in range(200):
        message = listener.get_message(timeout=0.05)
        if message and message["type"] == "subscribe":
            thread = threading.Thread(target=lambda: client.publish("news", "hello"))
            thread.start()
        if message and message["type"] == "message":
            assert message["data"] == "hello"
            heard.set()
            break
    thread.join()
    assert heard.is_set()
    listener.close()


for protocol in (2, 3):
    client = connect(protocol)
    client.flushall()
    use(client)
    if not is_cluster:
        transact(client)
        listen(client)
    client.close()
print(f"{sys.argv[1]} {library.__version__}")
