#!/usr/bin/env bash
# The one place that knows which Debian 12 packages Pointsman needs. Installs those of the named groups that are missing:
#
#     deploy/install_deps.sh [--list | --check] [GROUP...]      groups: build run test fuzz lint bench package; default: build run
#
#   --list   prints the packages of the groups, one a line, and changes nothing
#   --check  prints the missing ones; exit status 1 if there are any
#
# Nothing is started: no cluster of Debian's is created, no service of a new package runs, now or after the next boot, and nothing that
# ran before is stopped or restarted. What has to be put in place for that is taken away again, whatever happens.
# shellcheck disable=SC2034  # the package arrays are reached by name, see "of_group"
set -euo pipefail

# "package" or "package=command": the latter counts as installed when the command exists, wherever it came from
# (Node.js is often installed from elsewhere, and Debian's npm cannot be installed beside such a one).
packages_build=(
    g++ cmake ninja-build pkg-config
    libuv1-dev libssl-dev nlohmann-json3-dev prometheus-cpp-dev libspdlog-dev libcli11-dev libboost-dev
)
packages_run=(postgresql-15 postgresql-client-15 pgbouncer openssl)
packages_test=(
    doctest-dev ca-certificates
    python3-pytest python3-psycopg python3-psycopg2 python3-asyncpg
    libpostgresql-jdbc-java openjdk-17-jdk-headless=javac nodejs=node npm=npm
    python3-sqlalchemy python3-django ruby-activerecord ruby-pg
    dnsmasq-base patroni etcd-server iproute2 prometheus
    dpkg-dev file systemd-container python3-yaml python3-jsonschema
    chromium python3-websocket
)
packages_fuzz=(clang)
packages_lint=(clang clang-format clang-tidy shellcheck)
packages_bench=(haproxy strace valgrind libpq-dev)
packages_package=(dpkg-dev file)

# New packages whose service Debian enables at once; it is disabled again, for it would take the ports after the next boot.
# "package" or "package=service" where the names differ.
services=(pgbouncer haproxy patroni etcd-server=etcd prometheus)

policy=/usr/sbin/policy-rc.d
cluster_settings=/etc/postgresql-common/createcluster.d
cluster_setting=$cluster_settings/zz-pointsman-no-main-cluster.conf

# --- saying things ---

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    if [ $# -gt 0 ]; then printf '       %s\n' "$@" >&2; fi
    exit 1
}
usage() {
    sed -n '2,/^# shellcheck/{/^# shellcheck/d;s/^# \{0,1\}//;p}' "$0"
    exit "$1"
}

# --- what is wanted, what is missing ---

mode=install
groups=()
for argument in "$@"; do
    case $argument in
        --list | --check) mode=${argument#--} ;;
        -h | --help) usage 0 ;;
        build | run | test | fuzz | lint | bench | package) groups+=("$argument") ;;
        *)
            printf 'error: unknown group or option "%s"\n\n' "$argument" >&2
            usage 2 >&2
            ;;
    esac
done
[ ${#groups[@]} -gt 0 ] || groups=(build run)

wanted=()
for group in "${groups[@]}"; do
    declare -n of_group="packages_$group"
    wanted+=("${of_group[@]}")
done

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

if [ "$mode" = list ]; then
    printf '%s\n' "${wanted[@]%%=*}" | sort -u
    exit 0
fi

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    die 'this machine has no apt-get: only Debian 12 is looked after here.' \
        "Install the equivalents of these yourself: $(printf '%s ' "${wanted[@]%%=*}")"
fi

missing=()
for item in "${wanted[@]}"; do
    package=${item%%=*}
    if is_installed "$package"; then continue; fi
    if [[ $item == *=* ]] && command -v "${item#*=}" >/dev/null; then continue; fi
    if [[ " ${missing[*]-} " == *" $package "* ]]; then continue; fi
    missing+=("$package")
done

if [ "$mode" = check ]; then
    [ ${#missing[@]} -eq 0 ] || { printf '%s\n' "${missing[@]}"; exit 1; }
    exit 0
fi
[ ${#missing[@]} -gt 0 ] || exit 0

# --- the right to install ---

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    by_hand="$(realpath "$0") ${groups[*]}"
    if ! command -v sudo >/dev/null; then
        die "packages are missing, and installing them needs root; you are $(id -un), and there is no sudo here." \
            "Missing: ${missing[*]}" 'Let an administrator run this as root, then start again:' "    $by_hand"
    fi
    if ! sudo -n true 2>/dev/null && ! { [ -t 0 ] && [ -t 2 ] && sudo -v; }; then
        die "packages are missing, and sudo does not let $(id -un) install them (or wants a password, and there is no terminal to ask on)." \
            "Missing: ${missing[*]}" 'Let an administrator run this as root, then start again:' "    $by_hand"
    fi
    as_root=(sudo)
fi

# shellcheck source=/dev/null
release=$(. /etc/os-release && printf '%s %s' "${ID:-?}" "${VERSION_ID:-?}")
[ "$release" = 'debian 12' ] || warn "written for Debian 12, and this is $release: packages may be named otherwise"

# --- nothing may start ---

made_policy=no made_setting=no made_folder=no log=

new_services=()

disable_new_services() {
    local item service disable
    for item in "${new_services[@]}"; do
        if ! is_installed "${item%%=*}"; then continue; fi
        service=${item#*=}
        if command -v systemctl >/dev/null; then disable=(systemctl disable "$service"); else disable=(update-rc.d "$service" disable); fi
        if "${as_root[@]}" "${disable[@]}" >/dev/null 2>&1; then
            say "    $service was installed with its service disabled (systemctl enable --now $service starts it)"
        else
            warn "could not disable the service $service: it starts at the next boot"
        fi
    done
}

put_back() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    disable_new_services
    if [ $made_policy = yes ]; then "${as_root[@]}" rm -f "$policy"; fi
    if [ $made_setting = yes ]; then "${as_root[@]}" rm -f "$cluster_setting"; fi
    # The package may have put something into the folder meanwhile; then it stays.
    if [ $made_folder = yes ]; then "${as_root[@]}" rmdir --ignore-fail-on-non-empty "$cluster_settings" || true; fi
    if [ -n "$log" ]; then rm -f "$log"; fi
    exit "$status"
}
trap put_back EXIT
end_on_signals() {
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
}
end_on_signals

log=$(mktemp)

if [ ! -e "$policy" ]; then
    # 101 is "action forbidden by policy": maintainer scripts then start, stop and restart nothing (invoke-rc.d(8)).
    made_policy=yes
    printf '%s\n' '#!/bin/sh' '# Made by install_deps.sh of Pointsman while it installs packages; it is removed at the end.' 'exit 101' |
        "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
elif "${as_root[@]}" "$policy" postgresql start >/dev/null 2>&1; then
    warn "$policy exists and allows services to start; it is yours, so it is left alone"
fi

if [[ " ${missing[*]} " == *' postgresql-15 '* ]]; then
    # createcluster.conf belongs to the administrator; it includes this folder, where a file of ours can come and go.
    if [ ! -d "$cluster_settings" ]; then
        made_folder=yes
        "${as_root[@]}" mkdir -p "$cluster_settings"
    fi
    made_setting=yes
    echo 'create_main_cluster = false' | "${as_root[@]}" tee "$cluster_setting" >/dev/null
fi

for item in "${services[@]}"; do
    if [[ " ${missing[*]} " == *" ${item%%=*} "* ]]; then new_services+=("$item"); fi
done

# --- apt ---

# `setsid -w` while dpkg works: an installation that Ctrl-C cuts in two leaves a machine that has to be mended by hand.
own_session=()

apt() {
    # needrestart would restart services that use a library which was replaced.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8 \
        "${own_session[@]}" apt-get -qq -y -o DPkg::Lock::Timeout=300 -o APT::Status-Fd=1 "$@" 2>&1 </dev/null
}

# Turns apt's status lines ("dlstatus:1:12.5:…", "pmstatus:package:50:…") into one moving line, or on no terminal into a line per quarter.
show_progress() {
    local kind percent shown='' line
    while IFS= read -r line; do
        if [[ ! $line =~ ^(dl|pm)status:[^\ ]*:([0-9]+)\.[0-9]+: ]]; then
            printf '%s\n' "$line" >>"$log"
            continue
        fi
        if [ "${BASH_REMATCH[1]}" = dl ]; then kind='downloading'; else kind='installing '; fi
        percent=${BASH_REMATCH[2]}
        if [ -t 1 ]; then
            printf '\r    %s %3d %% ' "$kind" "$percent"
        elif [ "$kind:$((percent / 25))" != "$shown" ]; then
            shown="$kind:$((percent / 25))"
            printf '    %s %3d %%\n' "$kind" "$percent"
        fi
    done
    if [ -t 1 ]; then printf '\r                          \r'; fi
}

is_known() { [ -n "$(apt-cache show --no-all-versions "$1" 2>/dev/null | head -c 1)" ]; }

update() {
    say '    fetching the package lists'
    : >"$log"
    if ! apt update >"$log"; then
        cat "$log" >&2
        die 'apt-get update failed (see above): is this machine online, and are its sources in /etc/apt right?'
    fi
}

install_missing() {
    local interrupted=no status=0
    : >"$log"
    apt install --download-only --no-install-recommends "${missing[@]}" | show_progress || return
    trap 'interrupted=yes' INT TERM HUP
    own_session=(setsid -w)
    apt install --no-install-recommends "${missing[@]}" | { trap '' INT TERM HUP && show_progress; } || status=$?
    own_session=()
    end_on_signals
    [ $interrupted = no ] || exit 130
    return $status
}

say "installing ${#missing[@]} Debian packages: ${missing[*]}"
updated=no
for package in "${missing[@]}"; do
    if ! is_known "$package"; then
        update
        updated=yes
        break
    fi
done
if ! install_missing; then
    # The lists may be older than the archive, and then name files that are no longer there.
    if [ $updated = yes ] || ! { update && install_missing; }; then
        tail -n 40 "$log" >&2
        die 'apt-get install failed (see above).'
    fi
fi

