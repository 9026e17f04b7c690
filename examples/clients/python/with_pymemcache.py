"""A cache in use by pymemcache: the text protocol."""

import os
import time

import pymemcache
from pymemcache.client.base import Client
from pymemcache.serde import FLAG_INTEGER, FLAG_PICKLE, FLAG_TEXT, PickleSerde

host, port = os.environ["LARDER_ADDRESS"].rsplit(":", 1)
client = Client((host, int(port)), default_noreply=False, connect_timeout=5, timeout=5)
client.flush_all()
assert client.set("greeting", b"hello", expire=600)
assert client.get("greeting") == b"hello"
assert not client.add("greeting", b"other") and client.replace("greeting", b"hi")
assert client.append("greeting", b"!") and client.prepend("greeting", b">")
assert client.get("greeting") == b">hi!"
assert client.set_many({f"key:{number}": str(number).encode() for number in range(200)}) == []


class Counted:
    """The wire of the library, which counts what is written to it."""

    def __init__(self, wire):
        self.wire, self.requests = wire, 0

    def __getattr__(self, name):
        return getattr(self.wire, name)

    def sendall(self, data):
        self.requests += 1
        self.wire.sendall(data)


counted = client.sock = Counted(client.sock)
found = client.get_many([f"key:{number}" for number in range(0, 400, 2)])
assert counted.requests == 1, f"{counted.requests} requests"
assert found == {f"key:{number}": str(number).encode() for number in range(0, 200, 2)}
value, cas = client.gets("key:1")
assert client.cas("key:1", b"new", cas) is True and client.cas("key:1", b"newer", cas) is False
client.set("count", b"10")
assert client.incr("count", 5) == 15 and client.decr("count", 20) == 0 and client.decr("count", 1) == 0
assert client.set("soon", b"gone", expire=1)
while client.get("soon") is not None:
    time.sleep(0.05)

# Values of all kinds: what they were before they became bytes stands in the flags.
typed = Client((host, int(port)), serde=PickleSerde(), default_noreply=False, connect_timeout=5, timeout=5)
for value, kind in [("gr\u00fc\u00dfe", FLAG_TEXT), (41, FLAG_INTEGER), ({"a": [1, 2.5, None]}, FLAG_PICKLE)]:
    assert typed.set("typed", value) and typed.get("typed") == value
    seen = Client((host, int(port)), deserializer=lambda key, raw, flags: flags, timeout=5).get("typed")
    assert seen == kind, (value, seen)
assert client.touch("greeting", 30) and client.delete("greeting") and client.get("greeting") is None
large = os.urandom(500_000)
assert client.set("large", large) and client.get("large") == large
stats = client.stats()
assert int(stats[b"curr_items"]) >= 200, stats
print("pymemcache", pymemcache.__version__)
