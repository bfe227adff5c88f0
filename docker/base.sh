#!/bin/sh
# Makes the base image of the others where no image registry is to be had: a minimal Debian 13.
#
#   sh docker/base.sh [MIRROR [SECURITY_MIRROR]]
#
# Needs root, debootstrap and a Docker daemon. TAG names the image, debian:trixie-slim by default; the
# security mirror is MIRROR-security by default; http_proxy holds for debootstrap as it does elsewhere.
set -eu
# Unless told otherwise, the mirror that apt uses here; where it names none, the one debootstrap knows.
mirror=${1:-$(apt-get indextargets --format "\$(REPO_URI)" "Label: Debian" 2>/dev/null | sed "s,/*$,,;q")}
tag=${TAG:-debian:trixie-slim}

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
trap 'exit 1' HUP INT TERM
root=$made/root

# shellcheck disable=SC2086 # no mirror is no argument
debootstrap --variant=minbase trixie "$root" $mirror
sources=$root/etc/apt/sources.list
mirror=$(sed -n 's/^deb \([^ ]*\) trixie main.*/\1/p' "$sources")
cat >"$sources" <<SOURCES
deb $mirror trixie main
deb $mirror trixie-updates main
deb ${2:-$mirror-security} trixie-security main
SOURCES
# As in Debian's own slim image: no manuals, for these packages and for those to come.
cat >"$root/etc/dpkg/dpkg.cfg.d/slim" <<EXCLUDED
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
EXCLUDED
find "$root/usr/share/doc" -type f ! -name copyright -delete
rm -rf "$root/usr/share/info" "$root/usr/share/man" "$root/usr/share/locale"
# What belongs to this machine, and what apt can fetch again.
rm -rf "$root/etc/hostname" "$root/etc/resolv.conf" "$root"/var/cache/apt/* \
    "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/tmp/*

tar --create --numeric-owner --directory "$root" . |
    docker import --change 'CMD ["bash"]' - "$tag"
