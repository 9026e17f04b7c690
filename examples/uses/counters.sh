#!/bin/sh
# Counters are strings: INCR is atomic, so that no two clients get the same number.
set -eu
r() { redis-cli -c -h "$LARDER_HOST" -p "$LARDER_PORT" --no-auth-warning "$@"; }

r SET page:42:views 10
#> OK
r INCR page:42:views
#> 11
r INCRBY page:42:views 5
#> 16
r DECR page:42:views
#> 15
r INCRBYFLOAT page:42:rating 4.5
#> 4.5

# A limit: so many requests of one user in this minute. The first one says when the count ends.
limit='local n = redis.call("INCR", KEYS[1])
if n == 1 then redis.call("EXPIRE", KEYS[1], ARGV[2]) end
if n > tonumber(ARGV[1]) then return "refused" end
return "allowed"'
for request in 1 2 3; do
    r EVAL "$limit" 1 rate:user:7 2 60
done
#> allowed
#> allowed
#> refused
