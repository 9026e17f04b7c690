#!/bin/sh
# A leaderboard is a sorted set: members in the order of their scores, whatever their number.
set -eu
r() { redis-cli -c -h "$LARDER_HOST" -p "$LARDER_PORT" --no-auth-warning "$@"; }

r ZADD game:scores 310 ann 250 bob 470 cid
#> 3
r ZINCRBY game:scores 200 bob
#> 450

# The best two, and where somebody stands (from 0).
r ZREVRANGE game:scores 0 1 WITHSCORES
#> cid
#> 470
#> bob
#> 450
r ZREVRANK game:scores ann
#> 2

# Who has at least 400 points.
r ZCOUNT game:scores 400 +inf
#> 2

# Only the best two are kept.
r ZREMRANGEBYRANK game:scores 0 -3
#> 1
r ZRANGE game:scores 0 -1
#> bob
#> cid
