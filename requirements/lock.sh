#!/bin/sh
# Resolves the requirements of the images, NAME.in, into NAME.txt again: for the Python 3.13 and the
# C library of Debian 13, as near to local.txt as the packages allow. Needs uv.
#
#   sh requirements/lock.sh [NAME...]
set -eu
cd "$(dirname "$0")"

# TFX 1.21, ml-metadata 1.21 and, on Python 3.13, Beam 2.77 ask for other versions of these eight than
# local.txt holds. test_requirements.py names the reason for each.
other_in_data='attrs|google-apitools|kubernetes|mlxtend|pandas|pyarrow|scikit-learn|tensorflow-hub'

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
sed -n 's/^\([a-z0-9.-]*==[^ ;]*\).*/\1/p' local.txt >"$made/local"
grep -vE "^($other_in_data)==" "$made/local" >"$made/without"

[ $# -gt 0 ] || set -- data trainer trainer-gpu trainer-tpu
for name; do
    constraints=$made/local
    [ "$name" != data ] || constraints=$made/without
    uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --upgrade \
        --python-version 3.13 --python-platform x86_64-manylinux_2_40 \
        --custom-compile-command "sh requirements/lock.sh" \
        --constraints "$constraints" --override overrides "$name.in" --output-file "$name.txt"
done
