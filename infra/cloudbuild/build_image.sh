#!/bin/sh
# Builds an image and pushes it: build_image.sh PREFIX NAME DOCKERFILE REVISION
set -eu
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
image=$1/$2:$version
# REQUIREMENTS is what tells trainer-gpu from trainer; other Dockerfiles leave it unread.
DOCKER_BUILDKIT=1 docker build --file "docker/$3.Dockerfile" --tag "$image" \
    --build-arg "REQUIREMENTS=$2" --build-arg "VERSION=$version" --build-arg "REVISION=$4" .
docker push "$image"
