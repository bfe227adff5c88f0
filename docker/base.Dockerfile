# The base of the other images where no image registry can be reached: a plain Debian 12 with Python.
#   debootstrap --variant=minbase bookworm bookworm
#   tar --create --directory bookworm . | docker import - debian:bookworm-slim
#   docker build --file docker/base.Dockerfile --tag paper2hub/base .
#   docker build --file docker/data.Dockerfile --build-arg BASE=paper2hub/base --tag paper2hub/data .
ARG DEBIAN=debian:bookworm-slim
FROM ${DEBIAN}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates python-is-python3 python3 python3-pip python3-venv \
    && rm --recursive --force /var/lib/apt/lists/*
