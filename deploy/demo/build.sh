# shellcheck shell=bash disable=SC2034,SC2154 # the parts share their variables through demo.sh
# Finds or builds the pointsman binary. Sourced by demo.sh.

# A compiler on these sources wants up to a gigabyte; two dozen at once on a small machine end in its OOM killer.
parallel_jobs() {
    local cpus memory_kib
    cpus=$(nproc)
    memory_kib=$(awk '$1 == "MemAvailable:" {print $2}' /proc/meminfo)
    local by_memory=$((${memory_kib:-1048576} / (1024 * 1024)))
    [ "$by_memory" -ge 1 ] || by_memory=1
    echo $((cpus < by_memory ? cpus : by_memory))
}

# With "sudo deploy/demo.sh" the build folder should still belong to whoever owns the sources.
as_owner=()
choose_builder() {
    local owner
    [ "$(id -u)" -eq 0 ] || return 0
    owner=$(stat -c %U "$repository")
    if [ "$owner" = root ] || [ "$owner" = UNKNOWN ]; then return 0; fi
    if [ -e "$repository/build" ] && [ "$(stat -c %U "$repository/build")" = root ]; then return 0; fi
    if runuser -u "$owner" -- test -w "$repository"; then as_owner=(runuser -u "$owner" --); fi
}

find_or_build_binary() {
    if [ -n "$binary" ]; then
        [ -x "$binary" ] || die "--binary $binary: there is no program of that name"
        binary=$(realpath "$binary")
        done_with "not built, as you gave $binary"
        return
    fi
    binary=$repository/build/release/pointsman
    choose_builder
    if [ ${#as_owner[@]} -eq 0 ] && ! { mkdir -p "$repository/build" 2>/dev/null && [ -w "$repository/build" ]; }; then
        die "$(id -un) may not write $repository/build" 'Take a copy of the repository that belongs to you, or give a built one with --binary FILE.'
    fi
    local output
    # Configuring says little that is worth reading, unless it fails.
    if ! output=$(cd "$repository" && "${as_owner[@]}" cmake --preset release 2>&1); then
        printf '%s\n' "$output" >&2
        die 'cmake could not configure the build (see above).' \
            "If the repository was moved or copied since the last build, remove $repository/build/release and start again."
    fi
    (cd "$repository" && "${as_owner[@]}" cmake --build --preset release --target pointsman --parallel "$(parallel_jobs)") ||
        die 'the build failed (see above).'
    [ -x "$binary" ] || die "the build has made no $binary"
    done_with "build/release/pointsman"
}
