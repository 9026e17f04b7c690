#!/bin/sh
# A structure for each kind of data. What is in braces decides the slot: keys of one object lie together.
set -eu
r() { redis-cli -c -h "$LARDER_HOST" -p "$LARDER_PORT" --no-auth-warning "$@"; }

# An object is a hash: its fields are read and changed one by one.
r HSET '{user:7}:profile' name Ada city London logins 0
#> 3
r HGET '{user:7}:profile' name
#> Ada
r HINCRBY '{user:7}:profile' logins 1
#> 1
r HMGET '{user:7}:profile' city logins
#> London
#> 1

# A collection without order and without doubles is a set.
r SADD '{user:7}:tags' red green blue
#> 3
r SADD '{user:7}:tags' red
#> 0
r SISMEMBER '{user:7}:tags' green
#> 1
r SADD '{user:7}:seen' blue red black
#> 3
r SINTERCARD 2 '{user:7}:tags' '{user:7}:seen'
#> 2

# What has an order is a list: here the last three things that were looked at.
r RPUSH '{user:7}:recent' lamp table chair shelf
#> 4
r LTRIM '{user:7}:recent' -3 -1
#> OK
r LRANGE '{user:7}:recent' 0 -1
#> table
#> chair
#> shelf

# Several changes that are seen together or not at all.
r EVAL 'redis.call("HSET", KEYS[1], "city", ARGV[1]); return redis.call("SREM", KEYS[2], ARGV[2])' \
    2 '{user:7}:profile' '{user:7}:tags' Paris red
#> 1
r HGET '{user:7}:profile' city
#> Paris
