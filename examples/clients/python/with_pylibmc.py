"""A cache in use by pylibmc, over libmemcached: the text and the binary protocol."""

import os

import pylibmc

for binary in (False, True):
    client = pylibmc.Client([os.environ["LARDER_ADDRESS"]], binary=binary, behaviors={"cas": True, "tcp_nodelay": True})
    assert client.flush_all()
    assert client.set("text", "hello", time=600) and client.get("text") == "hello"
    assert client.set_multi({f"key:{number}": number for number in range(100)}) == []
    assert client.get_multi([f"key:{number}" for number in range(100)]) == {f"key:{n}": n for n in range(100)}
    value, cas = client.gets("key:1")
    assert value == 1 and client.cas("key:1", 2, cas) and client.get("key:1") == 2
    client.set("count", "10")
    assert client.incr("count", 5) == 15 and client.decr("count", 3) == 12
    assert client.append("text", " there") and client.get("text") == "hello there"
    assert client.add("text", "x") is False and client.delete("text") and client.get("text") is None
    large = os.urandom(300_000)
    assert client.set("large", large, min_compress_len=1000) and client.get("large") == large
    assert client.get_stats()[0][1]
    client.disconnect_all()
print("pylibmc", pylibmc.__version__)
