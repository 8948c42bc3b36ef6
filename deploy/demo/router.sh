# shellcheck shell=bash disable=SC2034,SC2154 # the parts share their variables through demo.sh
# Pointsman in front of the cluster: its configuration, its process, what it says about itself. Sourced by demo.sh.

# Sets direct_port, pooled_port and admin_port; a wish that is taken becomes the next free port.
choose_ports() {
    local direct_wish=$((10#${1%,*})) pooled_wish=$((10#${1#*,}))
    take_free_port "$direct_wish" && direct_port=$free_port
    if [ "$pooled_wish" -eq "$direct_port" ]; then pooled_wish=$((pooled_wish + 1)); fi
    take_free_port "$pooled_wish" && pooled_port=$free_port
    take_free_port 9432 && admin_port=$free_port
    local wish got
    for pair in "${1%,*}:$direct_port" "${1#*,}:$pooled_port"; do
        wish=$((10#${pair%:*})) got=${pair#*:}
        if [ "$wish" -ne "$got" ]; then note "port $wish is taken by another program, so this is port $got (--ports A,B chooses others)"; fi
    done
}

write_router_configuration() {
    printf '%s\n' "$probe_password" | as_server sh -c 'umask 077 && cat >secret/probe.pw'
    as_server tee pointsman.json >/dev/null <<JSON
{
  "listeners": [
    {"name": "direct", "address": "127.0.0.1", "port": $direct_port, "mode": "direct"},
    {"name": "pooled", "address": "127.0.0.1", "port": $pooled_port, "mode": "pooled"}
  ],
  "tls": {"certificate": "tls/server.crt", "key": "tls/server.key"},
  "admin": {"address": "127.0.0.1", "port": $admin_port},
  "drain_timeout": "2s",
  "branches": {
    "$branch": {
      "members": [
        {"name": "pg-0", "host": "${address[pg-0]}", "port": $postgres_port, "pgbouncer_port": $pgbouncer_port},
        {"name": "pg-1", "host": "${address[pg-1]}", "port": $postgres_port, "pgbouncer_port": $pgbouncer_port},
        {"name": "pg-2", "host": "${address[pg-2]}", "port": $postgres_port, "pgbouncer_port": $pgbouncer_port}
      ],
      "pools": {
        "reads": {"target": "replica", "endpoints": [{"host": "${address[reads]}", "port": $pgbouncer_port}]},
        "app": {"target": "primary", "endpoints": [{"host": "${address[app]}", "port": $pgbouncer_port}]}
      },
      "probe": {"user": "pointsman", "password_file": "secret/probe.pw", "database": "postgres"},
      "backend_tls": {"mode": "verify-full", "ca": "tls/ca.crt"},
      "auth": {"method": "scram", "verifiers": "lookup"}
    }
  }
}
JSON
}

# The first line of an HTTP answer of the admin endpoint.
admin_says() {
    local line=
    {
        printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n' "$1" "$admin_port" >&3
        IFS= read -r -t 2 line <&3
    } 3<>"/dev/tcp/127.0.0.1/$admin_port" 2>/dev/null
    printf '%s' "$line"
}

router_is_ready() { [[ $(admin_says /readyz 2>/dev/null) == 'HTTP/1.1 200'* ]]; }

start_router() {
    write_router_configuration
    # The repository may lie in a home folder that the servers' user cannot enter.
    local program=$binary
    if ! as_server test -x "$program"; then
        program=$folder/pointsman
        install -m 755 "$binary" "$program"
    fi
    local errors
    errors=$(as_server "$program" check --config "$folder/pointsman.json" 2>&1) ||
        die 'pointsman check does not like the configuration of the demo:' "$errors"
    start pointsman TERM "$program" serve --config "$folder/pointsman.json"
    wait_for 20 router_is_ready || {
        show_log pointsman
        die 'Pointsman did not become ready (see above)'
    }
}

show_status() {
    say ''
    note "${bold}pointsman status${plain}"
    "$binary" status --admin "http://127.0.0.1:$admin_port" | sed 's/^/   /'
}
