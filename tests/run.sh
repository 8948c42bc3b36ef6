#!/usr/bin/env bash
# Installs what is missing, builds and runs all tests; ends with ctest's summary. On Debian 12, as root or with sudo.
#
#     tests/run.sh [--quick]
#
#   --quick   unit tests and the fuzz corpora under AddressSanitizer, nothing else
#
# One build with AddressSanitizer and UBSan carries the unit tests, the fuzz corpora and the end-to-end tests. A build with ThreadSanitizer runs the
# end-to-end tests that make workers talk to each other, and an optimised one the demo and its examples. Build folders: build/asan, build/tsan,
# build/release; a second run builds only what changed.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=no
case ${1-} in
    --quick) quick=yes ;;
    "") ;;
    *)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        exit 2
        ;;
esac

step() { printf '\n== %s (%dm%02ds)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }

step "packages"
deploy/install_deps.sh build run test
if [ "$quick" = no ]; then tests/e2e/setup_deps.sh; fi

step "build with AddressSanitizer and UBSan"
cmake --preset asan -DPOINTSMAN_END_TO_END="$([ "$quick" = no ] && echo ON || echo OFF)" >build-configure.log 2>&1 || {
    cat build-configure.log
    rm -f build-configure.log
    exit 1
}
rm -f build-configure.log
cmake --build --preset asan -- --quiet

if [ "$quick" = no ]; then
    step "build with ThreadSanitizer"
    cmake --preset tsan -DPOINTSMAN_TESTS=OFF >/dev/null
    cmake --build --preset tsan --target pointsman -- --quiet
    step "optimised build"
    cmake --preset release >/dev/null
    cmake --build --preset release -- --quiet
fi

step "tests"
ctest --test-dir build/asan --output-on-failure
