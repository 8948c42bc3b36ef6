# shellcheck shell=bash disable=SC2034,SC2154 # the parts share their variables through demo.sh
# Connects to every destination and shows where each connection landed. Sourced by demo.sh.

# Asked through every connection: which member answers, is it a replica, which PgBouncer handed the question on, which role does it see.
question="SELECT current_setting('cluster_name'), CASE WHEN pg_is_in_recovery() THEN 'yes' ELSE 'no' END,
                 coalesce(nullif(current_setting('demo.via', true), ''), '-'), current_user"

row() { printf '   %s%-20s  %-5s  %-9s  %-14s  %-11s  %s%s\n' "$1" "$2" "$3" "$4" "$5" "$6" "$7" "$plain"; }

# conninfo USER PORT: what an application would be configured with.
conninfo() {
    printf "host=localhost port=%d user='%s' dbname=%s sslmode=verify-full sslrootcert='%s' connect_timeout=20" \
        "$2" "$1" "$branch" "$folder/tls/ca.crt"
}

ask_through_router() {
    PGPASSWORD=$password PGOPTIONS='-c pointsman.explain=on' psql -X -q -A -t -F ' ' -v ON_ERROR_STOP=1 "$1" -c "$question" </dev/null \
        2>"$folder/log/psql.log"
}

# The reason word of the NOTICE that "explain" asks for, as in "pointsman: connected to pg-1 (replica_best)".
reason_given() { sed -n 's/^NOTICE:.*(\([a-z_]*\)).*/\1/p;' "$folder/log/psql.log" | head -n 1; }

# visit SHOWN PORT MEMBERS RECOVERY VIA REASON CONNINFO: one row of the table. Fails unless it landed on one of MEMBERS, through VIA ("-": no
# PgBouncer), as the role without branch and target, and for that REASON.
visit() {
    local shown=$1 port=$2 expected_members=$3 expected_recovery=$4 expected_via=$5 expected_reason=$6 target=$7
    local answer member recovery via seen_as reason landed=right colour=$green
    if ! answer=$(ask_through_router "$target"); then
        row "$red" "$shown" "$port" failed '' '' ''
        sed 's/^/      /' "$folder/log/psql.log"
        return 1
    fi
    read -r member recovery via seen_as <<<"$answer"
    reason=$(reason_given)
    if [[ " $expected_members " != *" $member "* || $recovery != "$expected_recovery" || $via != "$expected_via" || $seen_as != "$role" ||
        $reason != "$expected_reason" ]]; then
        landed=wrong colour=$red
    fi
    row "$colour" "$shown" "$port" "$member" "$via" "$recovery" "${reason:-none given}"
    if [ $landed = wrong ]; then
        note "   expected: ${expected_members// / or }, through $expected_via, in recovery $expected_recovery, role $role, reason $expected_reason;" \
            "   got role $seen_as"
        return 1
    fi
}

# It is as important to be told plainly what does not work.
visit_refused() {
    local user=$1 port=$2
    say ''
    note "${bold}and what a refusal looks like${plain}: $user on port $port"
    if ask_through_router "$(conninfo "$user" "$port")" >/dev/null; then
        note "${red}was let in, and should not have been${plain}"
        return 1
    fi
    sed 's/^/      /' "$folder/log/psql.log"
    grep -q 'FATAL' "$folder/log/psql.log"
}

tour() {
    local good=yes uri
    row "$bold" USER PORT 'LANDED ON' THROUGH 'IN RECOVERY' REASON
    visit "$role.$branch" "$direct_port" pg-0 no - primary "$(conninfo "$role.$branch" "$direct_port")" || good=no
    visit "$role.$branch|replica" "$direct_port" 'pg-1 pg-2' yes - replica_best "$(conninfo "$role.$branch|replica" "$direct_port")" || good=no
    visit "$role.$branch" "$pooled_port" pg-0 no pgbouncer-pg-0 local_pool "$(conninfo "$role.$branch" "$pooled_port")" || good=no
    visit "$role.$branch|reads" "$pooled_port" 'pg-1 pg-2' yes reads named_pool "$(conninfo "$role.$branch|reads" "$pooled_port")" || good=no
    visit "$role.$branch|app" "$pooled_port" pg-0 no app named_pool "$(conninfo "$role.$branch|app" "$pooled_port")" || good=no
    # In a URI the pipe is written %7C.
    uri="postgresql://$role.$branch%7Creplica@localhost:$direct_port/$branch?sslmode=verify-full&sslrootcert=$folder/tls/ca.crt"
    visit "$role.$branch%7Creplica" "$direct_port" 'pg-1 pg-2' yes - replica_best "$uri" || good=no
    note "$dim(the last one was given to psql as a URI: postgresql://$role.$branch%7Creplica@localhost:$direct_port/$branch)$plain"
    visit_refused "$role.$branch|replica" "$pooled_port" || good=no
    [ "$good" = yes ]
}

show_how_to_try() {
    local url=http://127.0.0.1:$admin_port
    cat <<TEXT

${bold}It is running. Try it from another terminal:${plain}

   export PGPASSWORD=$password PGSSLMODE=verify-full PGSSLROOTCERT=$folder/tls/ca.crt PGHOST=localhost PGDATABASE=$branch

   psql -p $direct_port -U $role.$branch                    the primary
   psql -p $direct_port -U '$role.$branch|replica'          a replica
   psql -p $pooled_port -U $role.$branch                    the PgBouncer beside the primary
   psql -p $pooled_port -U '$role.$branch|reads'            the pool on the replicas
   psql -p $pooled_port -U '$role.$branch|app'              the pool on the primary
   psql 'postgresql://$role.$branch%7Creplica@localhost:$direct_port/'

   $binary status --admin $url --watch
   $binary route --admin $url --listener direct '$role.$branch|replica'

   Configuration, logs and data are in $folder
   pointsman.json there is read again when it changes; sessions stay.

${bold}Ctrl-C ends everything and removes that folder.${plain} Below is Pointsman's log, a line for every session that ends:

TEXT
}

keep_running() {
    tail -n 0 -f --pid=$$ "$folder/log/pointsman.log" &
    log_watcher=$!
    wait "${pids[pointsman]}" || true
    die 'Pointsman has ended by itself; its last lines are above'
}
