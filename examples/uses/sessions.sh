#!/bin/sh
# A session is a hash with a TTL that each use begins anew; who does not come back is forgotten.
set -eu
r() { redis-cli -c -h "$LARDER_HOST" -p "$LARDER_PORT" --no-auth-warning "$@"; }

r HSET session:f3a9 user 7 cart 2
#> 2
r EXPIRE session:f3a9 1800
#> 1
[ "$(r TTL session:f3a9)" -gt 1700 ] && echo "it ends by itself"
#> it ends by itself

# Read and prolonged.
r HGET session:f3a9 user
#> 7
r EXPIRE session:f3a9 3600
#> 1
[ "$(r TTL session:f3a9)" -gt 3500 ] && echo "it lasts longer"
#> it lasts longer

# Logged out. A token that is a plain string gets value and TTL at once.
r DEL session:f3a9
#> 1
r SET token:77 user:7 EX 60
#> OK
r EXISTS session:f3a9
#> 0
