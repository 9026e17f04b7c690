"""A cache in use by python-memcached."""

import os

import memcache

client = memcache.Client([os.environ["LARDER_ADDRESS"]], cache_cas=True, socket_timeout=5)
assert client.flush_all() is None
assert client.set("text", "gr\u00fc\u00dfe", time=600) and client.get("text") == "gr\u00fc\u00dfe"
assert client.set("object", {"a": [1, 2, 3]}) and client.get("object") == {"a": [1, 2, 3]}
assert client.set("number", 41) and client.incr("number") == 42 and client.get("number") == 42
assert client.set_multi({f"key:{number}": number for number in range(100)}) == []
assert client.get_multi([f"key:{number}" for number in range(100)]) == {f"key:{n}": n for n in range(100)}
assert client.gets("number") == 42 and client.cas("number", 43) and client.get("number") == 43
assert client.delete_multi(["key:1", "key:2"]) and client.get("key:1") is None
assert not client.add("text", "x") and client.replace("text", "x") and client.touch("text", 60)
assert client.get_stats()[0][1]["version"]
client.disconnect_all()
print("python-memcached", memcache.__version__)
