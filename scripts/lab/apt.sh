#!/bin/bash
# The one place where scripts/ asks Debian for packages.
#
#   apt.sh need COMMAND PACKAGE...   install the packages unless COMMAND exists
#   apt.sh download PACKAGE...       fetch their .debs into the current folder
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

# Runs "$@"; if that fails the package lists may be missing (a fresh Debian has
# none) or name versions that are gone, so it renews them and tries once more.
with_fresh_lists() {
    local output
    if ! output=$("$@" 2>&1); then
        echo "lab: apt-get update" >&2
        apt-get update -qq >&2
        output=$("$@" 2>&1) || {
            printf '%s\nfailed: %s\n' "$output" "$*" >&2
            return 1
        }
    fi
}

case ${1:-} in
need)
    wanted=$2
    shift 2
    command -v "$wanted" >/dev/null && exit
    if [ "$(id -u)" != 0 ]; then
        echo "$wanted is missing: as root, apt-get install $*" >&2
        exit 1
    fi
    echo "lab: installing $* (for $wanted)" >&2
    with_fresh_lists apt-get install -qy --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
    ;;
download)
    shift
    # Without this, apt warns that its sandbox user cannot write here.
    with_fresh_lists apt-get download -q -o APT::Sandbox::User=root "$@"
    ;;
*)
    echo "usage: $0 need COMMAND PACKAGE... | download PACKAGE..." >&2
    exit 2
    ;;
esac
