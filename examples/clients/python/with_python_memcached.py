"""A cache in use by python-memcached."""

import os
import socket
import time

import memcache

address = os.environ["LARDER_ADDRESS"]
client = memcache.Client([address], cache_cas=True, socket_timeout=5)


def flags(key):
    """What stands beside a value: this library writes there what the value was before it became bytes."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as wire, wire.makefile("rb") as answer:
        wire.sendall(b"get %s\r\n" % key.encode())
        return int(answer.readline().split()[2])


class Counted:
    """The wire of the library, which counts what is written to it."""

    def __init__(self, wire):
        self.wire, self.requests = wire, 0

    def __getattr__(self, name):
        return getattr(self.wire, name)

    def sendall(self, data):
        self.requests += 1
        self.wire.sendall(data)


assert client.flush_all() is None
kinds = memcache.Client
for key, value, kind in [
    ("text", "gr\u00fc\u00dfe", kinds._FLAG_TEXT),
    ("bytes", b"\x00\xff\r\n", 0),
    ("number", 41, kinds._FLAG_INTEGER),
    ("object", {"a": [1, 2.5, None]}, kinds._FLAG_PICKLE),
]:
    assert client.set(key, value, time=3600) and client.get(key) == value, key
    assert flags(key) == kind, (key, flags(key))
assert client.set("large", "long " * 10_000, min_compress_len=1000) and client.get("large") == "long " * 10_000
assert flags("large") == kinds._FLAG_TEXT | kinds._FLAG_COMPRESSED

assert client.set("soon", "gone", time=1)
while client.get("soon") is not None:
    time.sleep(0.05)
assert client.delete("text") and client.get("text") is None

assert client.set("counter", 0)
assert client.incr("counter", 1) == 1 and client.decr("counter", 1) == 0 and client.decr("counter", 1) == 0
assert client.incr("number") == 42 and client.get("number") == 42

assert client.set_multi({f"key:{number}": number for number in range(100)}) == []
counted = client.servers[0].socket = Counted(client.servers[0].socket)
found = client.get_multi([f"key:{number}" for number in range(0, 200, 2)])
assert found == {f"key:{number}": number for number in range(0, 100, 2)}
assert counted.requests == 1, f"{counted.requests} requests"

assert client.gets("number") == 42 and client.cas("number", 43) and client.get("number") == 43
assert client.delete_multi(["key:1", "key:2"]) and client.get("key:1") is None
assert client.set("text", "y") and not client.add("text", "x") and client.replace("text", "x") and client.touch("text", 60)
assert client.get_stats()[0][1]["version"]
client.disconnect_all()
print("python-memcached", memcache.__version__)
