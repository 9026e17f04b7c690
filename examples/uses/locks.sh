#!/bin/sh
# A lock is a key that only one can set, with a TTL, so that a holder that dies does not keep it.
set -eu
r() { redis-cli -c -h "$LARDER_HOST" -p "$LARDER_PORT" --no-auth-warning "$@"; }

# Mine until I release it, 30 seconds at most. The value is known to its holder only.
r SET lock:report mine-5c1e NX PX 30000
#> OK

# Somebody else gets nothing, and tries again later.
[ -z "$(r SET lock:report other-88b2 NX PX 30000)" ] && echo "it is taken"
#> it is taken

# Only its holder releases it: look and delete in one step.
release='if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("DEL", KEYS[1]) end
return 0'
r EVAL "$release" 1 lock:report other-88b2
#> 0
r EVAL "$release" 1 lock:report mine-5c1e
#> 1
r SET lock:report other-88b2 NX PX 30000
#> OK
