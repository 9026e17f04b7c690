"""A cache in use by pymemcache: the text protocol."""

import os

import pymemcache
from pymemcache.client.base import Client

host, port = os.environ["LARDER_ADDRESS"].rsplit(":", 1)
client = Client((host, int(port)), default_noreply=False, connect_timeout=5, timeout=5)
client.flush_all()
assert client.set("greeting", b"hello", expire=600)
assert client.get("greeting") == b"hello"
assert not client.add("greeting", b"other") and client.replace("greeting", b"hi")
assert client.append("greeting", b"!") and client.prepend("greeting", b">")
assert client.get("greeting") == b">hi!"
assert client.set_many({f"key:{number}": str(number).encode() for number in range(200)}) == []
found = client.get_many([f"key:{number}" for number in range(0, 400, 2)])
assert found == {f"key:{number}": str(number).encode() for number in range(0, 200, 2)}
value, cas = client.gets("key:1")
assert client.cas("key:1", b"new", cas) is True and client.cas("key:1", b"newer", cas) is False
client.set("count", b"10")
assert client.incr("count", 5) == 15 and client.decr("count", 20) == 0
assert client.touch("greeting", 30) and client.delete("greeting") and client.get("greeting") is None
large = os.urandom(500_000)
assert client.set("large", large) and client.get("large") == large
stats = client.stats()
assert int(stats[b"curr_items"]) >= 200, stats
print("pymemcache", pymemcache.__version__)
