#!/bin/sh
# What is written is there again after all servers were stopped: run this, stop the cluster, start it, run it again.
set -eu
r() { redis-cli -c -h "$LARDER_HOST" -p "$LARDER_PORT" --no-auth-warning "$@"; }

# The first run prints OK here, later ones nothing.
r SET note:1 "written by the first run" NX
#> OK
r GET note:1
#> written by the first run

# Every write is in the append-only file; a snapshot can be had as well.
r INFO persistence | tr -d '\r' | grep aof_enabled
#> aof_enabled:1
r BGSAVE
#> Background saving started
