#!/usr/bin/env bash
# Pointsman on your machine in one command: a real PostgreSQL cluster (a primary and two streaming replicas), its PgBouncers, and
# Pointsman in front of them with TLS. It connects to every destination with psql, shows where each connection landed, and keeps
# running so that you can try it yourself. Ctrl-C ends everything and leaves nothing behind.
#
#     deploy/demo.sh [--once] [--ports DIRECT,POOLED] [--binary FILE]
#
#   --once          stop after the tour; exit status 0 only if every connection landed where it should
#   --ports A,B     the two ports of Pointsman (default 5432,6432); a taken one is replaced by the next free one
#   --binary FILE   use this pointsman instead of building one
#
# For Debian 12, as root or as a user with sudo (only the installation of missing packages uses it).
set -euo pipefail

demo=$(cd "$(dirname "${BASH_SOURCE[0]}")/demo" && pwd)
repository=$(cd "$demo/../.." && pwd)
# shellcheck source=deploy/demo/common.sh
source "$demo/common.sh"
# shellcheck source=deploy/demo/build.sh
source "$demo/build.sh"
# shellcheck source=deploy/demo/cluster.sh
source "$demo/cluster.sh"
# shellcheck source=deploy/demo/router.sh
source "$demo/router.sh"
# shellcheck source=deploy/demo/tour.sh
source "$demo/tour.sh"

usage() {
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"
    exit "$1"
}

once=no
binary=
wanted_ports=5432,6432
while [ $# -gt 0 ]; do
    case $1 in
        --once) once=yes ;;
        --ports) wanted_ports=${2-} && shift ;;
        --ports=*) wanted_ports=${1#*=} ;;
        --binary) binary=${2-} && shift ;;
        --binary=*) binary=${1#*=} ;;
        -h | --help) usage 0 ;;
        *)
            printf 'error: unknown argument "%s"\n\n' "$1" >&2
            usage 2 >&2
            ;;
    esac
    shift || usage 2 >&2
done
check_ports "$wanted_ports"

step 1 'Packages'
"$repository/deploy/install_deps.sh" ${binary:+run} || exit 1
done_with 'all there'

step 2 'Build'
find_or_build_binary

prepare_folder
step 3 'PostgreSQL: a primary and two streaming replicas'
make_certificates
start_primary
start_replicas
done_with "$(members_line)"

step 4 'PgBouncers: one beside every member, a pool on the replicas, a pool on the primary'
start_pgbouncers
done_with "$(pools_line)"

step 5 'Pointsman'
choose_ports "$wanted_ports"
start_router
done_with "direct on port $direct_port, pooled on port $pooled_port, admin on http://127.0.0.1:$admin_port"

step 6 'Tour: one psql for every destination, all with sslmode=verify-full'
outcome=0
tour || outcome=1
show_status || outcome=1

if [ "$outcome" -ne 0 ]; then
    show_log pointsman
    die 'a connection did not land where it should, see above'
fi
if [ "$once" = yes ]; then exit 0; fi

interrupted=0 # from here on Ctrl-C is the way it is meant to end
show_how_to_try
keep_running
