#!/usr/bin/env bash
# Build a replacement for python:3.11-slim from Debian packages, for machines without access to an image registry.
# It uses this machine's certificates and pip's package index.
set -euo pipefail
tag=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
site=$(apt-get indextargets --format '$(SITE)' | grep -m1 'debian/*$')
debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv bookworm "$work/tree" "$site" > "$work/log" 2>&1 ||
    { tail -n 5 "$work/log"; exit 1; }
cp /etc/ssl/certs/ca-certificates.crt "$work/tree/etc/ssl/certs/"
ln -s python3 "$work/tree/usr/bin/python"
rm -rf "$work"/tree/usr/lib/python3*/EXTERNALLY-MANAGED "$work"/tree/var/{cache/apt/archives/*.deb,lib/apt/lists/*} \
    "$work"/tree/usr/share/{doc,man,locale}
changes=(--change "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore")
if index=$(python3 -m pip config get global.index-url 2> /dev/null); then
    changes+=(--change "ENV PIP_INDEX_URL=$index")
fi
tar -C "$work/tree" -c . | docker import "${changes[@]}" - "$tag"
