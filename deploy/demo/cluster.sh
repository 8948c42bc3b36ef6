# shellcheck shell=bash disable=SC2034,SC2154 # the parts share their variables through demo.sh
# The cluster behind the router: certificates, a primary, two streaming replicas, the PgBouncers. Sourced by demo.sh.
#
# Every member has a loopback address of its own, as machines have, and the same two ports:
#
#     pg-0 127.0.0.11   pg-1 127.0.0.12   pg-2 127.0.0.13      PostgreSQL on $postgres_port, a PgBouncer on $pgbouncer_port
#     reads 127.0.0.21  (on pg-1 and pg-2)     app 127.0.0.22  (on pg-0)                      dedicated PgBouncers

members=(pg-0 pg-1 pg-2)
declare -A address=([pg-0]=127.0.0.11 [pg-1]=127.0.0.12 [pg-2]=127.0.0.13 [reads]=127.0.0.21 [app]=127.0.0.22)
branch=shop
role=alice
postgres_binaries=/usr/lib/postgresql/15/bin

random_word() { openssl rand -hex 12; }

members_line() { printf 'pg-0 %s (primary), pg-1 %s, pg-2 %s, port %d' "${address[pg-0]}" "${address[pg-1]}" "${address[pg-2]}" "$postgres_port"; }
pools_line() { printf 'beside each member, reads %s, app %s, port %d' "${address[reads]}" "${address[app]}" "$pgbouncer_port"; }

# --- certificates ---

make_authority() {
    as_server openssl req -x509 -config tls/empty.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -sha256 \
        -subj '/CN=Pointsman demo CA' -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        -addext subjectKeyIdentifier=hash -keyout tls/ca.key -out tls/ca.crt 2>>"$folder/log/openssl.log"
}

# issue NAME SUBJECT_ALTERNATIVE_NAMES: NAME.crt and NAME.key (P-256), signed by the demo's CA.
issue() {
    as_server openssl req -x509 -config tls/empty.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -sha256 \
        -CA tls/ca.crt -CAkey tls/ca.key -subj "/CN=$1" -addext "subjectAltName=$2" -addext basicConstraints=critical,CA:FALSE \
        -addext extendedKeyUsage=serverAuth -keyout "tls/$1.key" -out "tls/$1.crt" 2>>"$folder/log/openssl.log"
}

make_certificates() {
    as_server mkdir tls
    printf '[req]\ndistinguished_name = none\n[none]\n' | as_server tee tls/empty.cnf >/dev/null
    local at backends=DNS:localhost
    for at in "${address[@]}"; do backends+=,IP:$at; done
    if ! { make_authority && issue server DNS:localhost,IP:127.0.0.1 && issue backend "$backends"; }; then
        show_log openssl
        die 'openssl could not make the certificates (see above)'
    fi
    as_server rm tls/ca.key tls/empty.cnf # nobody can sign anything with this CA any more
}

# --- PostgreSQL ---

# Straight to a member over its socket, as the superuser; never through the router.
ask() {
    local member=$1
    shift
    psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$folder/run/$member" -p "$postgres_port" -U postgres "$@"
}

answers() { ask "$1" -d postgres -c 'SELECT 1' >/dev/null 2>&1; }

write_settings() {
    local member=$1
    as_server mkdir -p -m 700 "run/$member"
    as_server tee "data/$member/postgresql.auto.conf.demo" >/dev/null <<CONF
listen_addresses = '${address[$member]}'
port = $postgres_port
unix_socket_directories = '$folder/run/$member'
cluster_name = '$member'
ssl = on
ssl_cert_file = '$folder/tls/backend.crt'
ssl_key_file = '$folder/tls/backend.key'
ssl_ca_file = '$folder/tls/ca.crt'
password_encryption = 'scram-sha-256'
max_connections = 100
shared_buffers = '16MB'
wal_level = logical
wal_keep_size = '128MB'
fsync = off
log_line_prefix = '%m [%p] %q%u@%d '
CONF
    as_server mv "data/$member/postgresql.auto.conf.demo" "data/$member/demo.conf"
}

start_member() {
    local member=$1
    start "$member" INT "$postgres_binaries/postgres" -D "$folder/data/$member"
    wait_for 60 answers "$member" || {
        show_log "$member"
        die "PostgreSQL $member did not start (see above)"
    }
}

start_primary() {
    take_free_port 25432 && postgres_port=$free_port
    take_free_port 26432 && pgbouncer_port=$free_port
    as_server mkdir -m 700 data run secret
    note 'creating the primary'
    as_server "$postgres_binaries/initdb" -D data/pg-0 -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$folder/log/initdb.log" 2>&1 || {
        show_log initdb
        die 'initdb failed (see above)'
    }
    as_server tee -a data/pg-0/postgresql.conf >/dev/null <<<"include 'demo.conf'"
    # Only this machine reaches these addresses, and only the servers' own user (and root) enters the sockets' folder.
    as_server tee data/pg-0/pg_hba.conf >/dev/null <<'HBA'
local    all          all                    trust
hostssl  all          all         127.0.0.0/8  scram-sha-256
hostssl  replication  replicator  127.0.0.0/8  scram-sha-256
HBA
    write_settings pg-0
    start_member pg-0

    password=$(random_word)
    replicator_password=$(random_word)
    probe_password=$(random_word)
    ask pg-0 -d postgres -v role="$role" -v password="$password" -v replicator_password="$replicator_password" <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator_password';
SQL
    # What a real installation does, too: the probe role, which here also looks up verifiers.
    ask pg-0 -d postgres -v probe_password="$probe_password" -f "$repository/deploy/sql/01_probe_role.sql" >/dev/null
    ask pg-0 -d postgres -v auth_role=pointsman -f "$repository/deploy/sql/02_auth_role.sql" >/dev/null
    ask pg-0 -d postgres -c "CREATE DATABASE $branch OWNER $role"
    ask pg-0 -d "$branch" <<SQL
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL, made timestamptz NOT NULL DEFAULT now());
ALTER TABLE orders OWNER TO $role;
INSERT INTO orders (item) VALUES ('a map'), ('a lantern'), ('a pair of points');
SQL
}

start_copying_to() {
    PGPASSWORD=$replicator_password start "copy-$1" TERM "$postgres_binaries/pg_basebackup" -D "data/$1" -R -X stream -c fast --no-sync \
        -d "host=${address[pg-0]} port=$postgres_port user=replicator application_name=$1 sslmode=verify-full sslrootcert=$folder/tls/ca.crt"
}

streaming() { [ "$(ask pg-0 -d postgres -c "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")" = 2 ]; }

start_replicas() {
    note 'copying it to two replicas'
    local member
    for member in pg-1 pg-2; do start_copying_to "$member"; done
    for member in pg-1 pg-2; do
        wait "${pids[copy-$member]}" || {
            show_log "copy-$member"
            die 'pg_basebackup failed (see above)'
        }
        write_settings "$member"
        start_member "$member"
    done
    wait_for 30 streaming || {
        show_log pg-1
        die 'the replicas do not stream from the primary (see above)'
    }
}

# --- PgBouncer ---

# start_pgbouncer NAME AT HOSTS: transaction pooling. Each of its server connections carries the pool's name in the setting demo.via,
# so that a query can tell which PgBouncer it came through.
start_pgbouncer() {
    local name=$1 at=$2 hosts=$3
    as_server tee "secret/$name.ini" >/dev/null <<INI
[databases]
* = host=$hosts port=$postgres_port connect_query='SELECT set_config(''demo.via'', ''$name'', false)'
[pgbouncer]
listen_addr = $at
listen_port = $pgbouncer_port
unix_socket_dir =
pool_mode = transaction
default_pool_size = 10
max_client_conn = 200
auth_type = scram-sha-256
auth_file = $folder/secret/userlist.txt
ignore_startup_parameters = extra_float_digits
client_tls_sslmode = require
client_tls_cert_file = $folder/tls/backend.crt
client_tls_key_file = $folder/tls/backend.key
client_tls_ca_file = $folder/tls/ca.crt
server_tls_sslmode = verify-ca
server_tls_ca_file = $folder/tls/ca.crt
INI
    start "$name" TERM /usr/sbin/pgbouncer "$folder/secret/$name.ini"
    wait_for 20 is_listening "$at" "$pgbouncer_port" || {
        show_log "$name"
        die "PgBouncer $name did not start (see above)"
    }
}

start_pgbouncers() {
    local member
    # PgBouncer knows the role by its SCRAM verifier alone, and logs in to PostgreSQL with what the client has proved.
    ask pg-0 -d postgres -c "SELECT format('\"%s\" \"%s\"', rolname, rolpassword) FROM pg_authid WHERE rolname = '$role'" |
        as_server sh -c 'umask 077 && cat >secret/userlist.txt'
    for member in "${members[@]}"; do start_pgbouncer "pgbouncer-$member" "${address[$member]}" "${address[$member]}"; done
    start_pgbouncer reads "${address[reads]}" "${address[pg-1]},${address[pg-2]}"
    start_pgbouncer app "${address[app]}" "${address[pg-0]}"
}
