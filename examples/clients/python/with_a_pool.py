"""Forty threads share a pool of redis-py, and go on while the shard's primary changes as planned.

A connection stays with the server that it was made to. Once that is no primary any more it answers MOVED, which a client
that knows nothing of clusters takes for an error: named in `retry_on_error` it has the connection made anew, to whoever is
behind the address now, and the command sent once more. It was not executed before.
"""

import os
import threading

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import MovedError
from redis.retry import Retry

host, port = os.environ["LARDER_ADDRESS"].rsplit(":", 1)
settings = dict(host=host, port=int(port), password=os.environ.get("LARDER_PASSWORD") or None, decode_responses=True)
pool = redis.ConnectionPool(
    max_connections=50, retry=Retry(ExponentialBackoff(cap=0.5, base=0.01), 20), retry_on_error=[MovedError], **settings
)
client = redis.Redis(connection_pool=pool)
looks = redis.Redis(**settings)


def connected():
    return looks.info("clients")["connected_clients"]


THREADS, EACH = 40, 100
others = connected()
counts, failures, end = [0] * THREADS, [], threading.Event()


def work(number):
    try:
        while not end.is_set():
            counts[number] = client.incr(f"pooled:{number}")
    except Exception as failure:
        failures.append(failure)


def all_have_counted_on():
    goals = [count + EACH for count in counts]
    while any(count < goal for count, goal in zip(counts, goals)) and not failures:
        assert connected() <= others + 50


threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
for thread in threads:
    thread.start()
all_have_counted_on()
if os.environ.get("LARDER_CLUSTER") == "yes":
    before = looks.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "demo")
    looks.execute_command("SENTINEL", "FAILOVER", "demo")
    while looks.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "demo") == before:
        pass
    # Another server, whose connections are others.
    looks.close()
    others = 50
    all_have_counted_on()
end.set()
for thread in threads:
    thread.join()
assert not failures, failures[0]
assert [int(client.get(f"pooled:{number}")) for number in range(THREADS)] == counts
print("redis", redis.__version__)
