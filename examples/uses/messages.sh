#!/bin/sh
# Messages: to all who listen now, to one worker each, or kept until they are done.
set -eu
r() { redis-cli -c -h "$LARDER_HOST" -p "$LARDER_PORT" --no-auth-warning "$@"; }

# Pub/sub: who listens hears, and nothing is kept. In a cluster, listen where it is published, or use SPUBLISH.
heard=$(mktemp)
redis-cli -h "$LARDER_HOST" -p "$LARDER_PORT" --no-auth-warning SUBSCRIBE news >"$heard" &
listener=$!
# The reply is the number of listeners.
until [ "$(r PUBLISH news hello)" = 1 ]; do sleep 0.1; done
until grep -q hello "$heard"; do sleep 0.1; done
kill "$listener"
wait "$listener" 2>/dev/null || true
tail -n 3 "$heard"
rm "$heard"
#> message
#> news
#> hello

# A queue: each task goes to one worker, the oldest first. BLMOVE keeps it aside until it is done.
r RPUSH '{mail}:todo' first second
#> 2
r BLMOVE '{mail}:todo' '{mail}:doing' LEFT RIGHT 5
#> first
r LREM '{mail}:doing' 1 first
#> 1
r LLEN '{mail}:todo'
#> 1

# A stream: messages stay, groups of workers read each once and say when it is done.
r XADD orders 1-1 item lamp
#> 1-1
r XADD orders 1-2 item chair
#> 1-2
r XGROUP CREATE orders packers 0
#> OK
r XREADGROUP GROUP packers anna COUNT 1 STREAMS orders '>'
#> orders
#> 1-1
#> item
#> lamp
r XACK orders packers 1-1
#> 1
r XLEN orders
#> 2
