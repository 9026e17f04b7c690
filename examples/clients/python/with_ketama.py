"""Three servers of Memcached and a client that shares the keys out over them by consistent hashing (ketama), by pylibmc."""

import os

import pylibmc

servers = os.environ["LARDER_ADDRESS"].split(",")
assert len(servers) == 3


def client(members):
    return pylibmc.Client(members, behaviors={"ketama": True, "tcp_nodelay": True})


def hits(members):
    return len(client(members).get_multi(keys))


keys = [f"key:{number}" for number in range(3000)]
assert client(servers).set_multi({key: key for key in keys}) == []
assert hits(servers) == len(keys)
for member in servers:
    share = len(client([member]).get_multi(keys))
    assert share > len(keys) / 6, f"{member} has {share} keys"
    # Whoever is not taken out keeps the keys that he had.
    others = [other for other in servers if other != member]
    assert hits(others) == len(keys) - share, member
    assert hits(others) > len(keys) / 2
# The order of the list means nothing.
assert hits(servers[::-1]) == len(keys)
print("pylibmc", pylibmc.__version__)
