#!/bin/sh
# Installs the package in a copy of this machine's system, starts what its unit says, installs it anew, takes it off:
#
#   unshare --mount --net --pid --fork sh installed.sh larder.deb FOLDER
#
# What is written goes to memory that only these namespaces see; afterwards nothing of it is left.
set -eu

if [ "$1" != inside ]; then
    mount -t tmpfs tmpfs "$2"
    mkdir "$2/upper" "$2/work" "$2/system"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$2/upper,workdir=$2/work" "$2/system"
    cp "$1" "$2/system/larder.deb"
    cp "$0" "$2/system/installed.sh"
    mount -t proc proc "$2/system/proc"
    mount --rbind /dev "$2/system/dev"
    ip link set lo up
    exec chroot "$2/system" /bin/sh /installed.sh inside
fi

export DEBIAN_FRONTEND=noninteractive
unit=/usr/lib/systemd/system/larder-server.service
wanted=/etc/systemd/system/multi-user.target.wants/larder-server.service
configuration=/etc/larder/larder.conf

is() {
    [ "$2" = "$3" ] || { echo "$1 is '$2', not '$3'" >&2; exit 1; }
}

gone() {
    for path in "$@"; do
        [ ! -e "$path" ] && [ ! -L "$path" ] || { echo "$path is still there" >&2; exit 1; }
    done
}

package() {
    dpkg --force-unsafe-io "$@" >/dpkg.log 2>&1 || { cat /dpkg.log >&2; exit 1; }
}

of_unit() {
    sed -n "s/^$1=//p" "$unit"
}

# As systemd would: its user, folder and rights.
start() {
    install -d -o larder -g larder -m "$(of_unit StateDirectoryMode)" "/var/lib/$(of_unit StateDirectory)"
    (
        cd "$(of_unit WorkingDirectory)"
        umask "$(of_unit UMask)"
        # The line is of several words.
        # shellcheck disable=SC2046
        exec setpriv --reuid "$(of_unit User)" --regid "$(of_unit Group)" --init-groups --no-new-privs \
            --bounding-set=-all --inh-caps=-all $(of_unit ExecStart) >/server.log 2>&1
    ) &
    server=$!
    until [ "$(redis-cli ping 2>&1)" = PONG ]; do
        kill -0 "$server" || { cat /server.log >&2; exit 1; }
        sleep 0.05
    done
}

stop() {
    kill -TERM "$server"
    wait "$server" || { cat /server.log >&2; exit 1; }
}

package --install /larder.deb
is "what dpkg finds changed" "$(dpkg --verify larder)" ""
is "the user's home" "$(getent passwd larder | cut -d: -f6)" /var/lib/larder
is "/etc/larder" "$(stat -c '%U:%G %a' /etc/larder)" "larder:larder 750"
is "$configuration" "$(stat -c '%U:%G %a' $configuration)" "larder:larder 640"
is "$wanted" "$(readlink -f $wanted)" "$(readlink -f $unit)"
if command -v systemd-analyze >/dev/null; then
    systemd-analyze verify "$unit" >/verify.log 2>&1 || { cat /verify.log >&2; exit 1; }
    is "what systemd says of the unit" "$(grep larder /verify.log || true)" ""
fi

start
is "SET" "$(redis-cli set key value)" OK
is "CONFIG SET" "$(redis-cli config set timeout 77)" OK
is "CONFIG REWRITE" "$(redis-cli config rewrite)" OK
stop
# Once more, as an upgrade: what the machine's owner changed stays.
package --install /larder.deb
start
is "GET after a restart" "$(redis-cli get key)" value
is "timeout after a restart" "$(redis-cli config get timeout | tail -n 1)" 77
stop

package --remove larder
gone /usr/bin/larder-server /usr/bin/larder $unit
is "the data after a removal" "$(ls -d /var/lib/larder/appendonlydir)" /var/lib/larder/appendonlydir
is "timeout after a removal" "$(grep -c '^timeout 77' $configuration)" 1
package --purge larder
gone /etc/larder /var/lib/larder $wanted
