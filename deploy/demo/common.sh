# shellcheck shell=bash disable=SC2034,SC2154 # the parts share their variables through demo.sh
# What the parts of the demo share: saying things, ports, processes, and the end of it all. Sourced by demo.sh.

# Nothing of the caller's may steer libpq.
for name in "${!PG@}"; do unset "$name"; done
export LC_ALL=C.UTF-8

# --- saying things ---

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'; else bold='' dim='' red='' green='' plain=''; fi
step_began=0

say() { printf '%s\n' "$*"; }
step() {
    step_began=$SECONDS
    printf '%s%s  %s%s\n' "$bold" "$1" "$2" "$plain"
}
done_with() { printf '   %s %s(%d s)%s\n' "$1" "$dim" $((SECONDS - step_began)) "$plain"; }
note() { printf '   %s\n' "$@"; }
die() {
    printf '%serror:%s %s\n' "$red" "$plain" "$1" >&2
    shift
    if [ $# -gt 0 ]; then printf '       %s\n' "$@" >&2; fi
    exit 1
}

# The last words of a server, for whoever has to find out why something went wrong: the folder will be gone.
show_log() {
    local file=$folder/log/$1.log
    if [ ! -s "$file" ]; then
        printf '   (%s has written no log)\n' "$1" >&2
        return
    fi
    printf '\n   last lines of the log of %s:\n' "$1" >&2
    tail -n "${2:-25}" "$file" | sed 's/^/   | /' >&2
}

# --- ports ---

declare -A taken=()

# Every TCP port that something listens on, at whatever address: a stranger on [::1]:5432 would catch "localhost" too.
read_taken_ports() {
    local hexadecimal
    # State 0A is LISTEN; the local address stands in the second column as ADDRESS:PORT.
    for hexadecimal in $(awk '$4 == "0A" { sub(/.*:/, "", $2); print $2 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null); do
        taken[$((16#$hexadecimal))]=1
    done
}

# Sets `free_port` to the first free port from $1 on, and keeps it from being given out again.
take_free_port() {
    read_taken_ports
    free_port=$1
    while [ -n "${taken[$free_port]-}" ]; do
        free_port=$((free_port + 1))
        [ "$free_port" -le 65535 ] || die "no free port from $1 on"
    done
    taken[$free_port]=1
}

check_ports() {
    local first second port lowest
    [[ $1 =~ ^([0-9]{1,5}),([0-9]{1,5})$ ]] || die "--ports wants two numbers with a comma between them, as in --ports 15432,16432; got \"$1\""
    first=$((10#${BASH_REMATCH[1]})) second=$((10#${BASH_REMATCH[2]}))
    [ "$first" -ne "$second" ] || die '--ports wants two different ports'
    # Pointsman runs as an ordinary user here, even when root starts the demo.
    lowest=$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null || echo 1024)
    for port in "$first" "$second"; do
        if [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; then die "--ports: $port is not a port (1 to 65535)"; fi
        [ "$port" -ge "$lowest" ] || die "--ports: port $port is below $lowest, which only root may use; Pointsman runs as an ordinary user here" \
            'Choose higher ones, as in --ports 15432,16432'
    done
}

is_listening() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }

# wait_for SECONDS COMMAND...: asks the command until it succeeds. Fails when time is up or when server `watched` has died.
watched=
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        if [ -n "$watched" ] && ! is_running "$watched"; then return 1; fi
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.05
    done
}

# --- processes ---

folder=
declare -A pids=()      # name -> pid
order=()                # names in the order they were started

# PostgreSQL and PgBouncer refuse to run as root; an ordinary user runs everything himself.
as_user=()
use_server_user() {
    [ "$(id -u)" -eq 0 ] || return 0
    id postgres >/dev/null 2>&1 || die 'there is no user "postgres", although postgresql-common is installed: dpkg-reconfigure postgresql-common makes it'
    as_user=(setpriv --reuid=postgres --regid=postgres --init-groups)
    "${as_user[@]}" true 2>/dev/null ||
        die 'this root may not become user "postgres" (a container without that right?), and PostgreSQL refuses to run as root.' \
            'Run the demo as an ordinary user: the packages are installed now, so it needs no sudo.'
}

# Runs a program as the servers' user.
as_server() { "${as_user[@]}" env HOME="$folder" "$@"; }

# start NAME STOP_SIGNAL COMMAND...: a server in the foreground of its own session, so that Ctrl-C in this terminal reaches only this script,
# and with a signal from the kernel in case this script is killed.
start() {
    local name=$1 stop_signal=$2
    shift 2
    local wrapper=("${as_user[@]}")
    [ ${#wrapper[@]} -gt 0 ] || wrapper=(setpriv)
    setsid "${wrapper[@]}" "--pdeathsig=$stop_signal" -- env HOME="$folder" "$@" >"$folder/log/$name.log" 2>&1 </dev/null &
    pids[$name]=$!
    order+=("$name")
    watched=$name
}

# A server of ours that lives. That it is still our child is looked at, too: process ids are given out again.
is_running() {
    local stat state parent
    read -r stat 2>/dev/null <"/proc/${pids[$1]-none}/stat" || return 1
    read -r state parent _ <<<"${stat##*) }"
    [ "$parent" = $$ ] && [ "$state" != Z ]
}

# stop_servers SIGNAL SECONDS NAME...: the signal to all of them, then waits for their end.
stop_servers() {
    local signal=$1 end=$((SECONDS + $2)) name
    shift 2
    for name in "$@"; do
        if is_running "$name"; then kill "-$signal" "${pids[$name]}" 2>/dev/null || true; fi
    done
    for name in "$@"; do
        while is_running "$name" && [ "$SECONDS" -lt "$end" ]; do sleep 0.05; done
    done
}

finish() {
    local status=$? name routers=() pools=() members=()
    trap - EXIT
    trap '' INT TERM HUP PIPE
    set +e # whatever fails from here on, the rest is still to be done
    if [ -n "${log_watcher-}" ]; then kill "$log_watcher" 2>/dev/null || true; fi
    if [ ${#order[@]} -gt 0 ]; then
        printf '\n%sStopping the servers%s\n' "$bold" "$plain"
        for name in "${order[@]}"; do
            case $name in
                pointsman) routers+=("$name") ;;
                pg-*) members=("$name" "${members[@]}") ;;
                *) pools+=("$name") ;;
            esac
        done
        # Pointsman drains on SIGTERM and ends at once on a second one. QUIT is PostgreSQL's immediate shutdown: this data is thrown away.
        stop_servers TERM 3 "${routers[@]}"
        stop_servers TERM 2 "${routers[@]}" "${pools[@]}"
        stop_servers QUIT 5 "${members[@]}"
        stop_servers KILL 2 "${order[@]}"
    fi
    if [ -n "$folder" ] && [ -d "$folder" ]; then
        cd /
        rm -rf -- "$folder"
        note "removed $folder"
    fi
    exit "$status"
}

# How the user ended it decides the exit status only until the tour has succeeded.
interrupted=130
trap finish EXIT
trap 'exit $interrupted' INT
trap 'exit $((interrupted == 0 ? 0 : 143))' TERM
trap 'exit $((interrupted == 0 ? 0 : 129))' HUP
trap 'exec >/dev/null; exit 141' PIPE # as in "demo.sh | head"

prepare_folder() {
    use_server_user
    local parent=${TMPDIR:-/tmp}
    [ "${#parent}" -le 50 ] || parent=/tmp # a Unix socket's path may have 107 bytes
    folder=$(mktemp -d "$parent/pointsman-demo.XXXXXX") || die "cannot make a folder in $parent" 'Set TMPDIR to a folder you may write in.'
    # Everybody may read the CA certificate in it; what is secret has its own mode.
    chmod 755 "$folder"
    mkdir "$folder/log"
    if [ ${#as_user[@]} -gt 0 ]; then
        chown postgres: "$folder"
        as_server test -x "$folder" || die "user postgres cannot reach $folder" 'Set TMPDIR to a folder that everybody may enter, such as /tmp.'
    fi
    cd "$folder" || die "cannot enter $folder"
}
