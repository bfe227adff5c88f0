# The steps train, evaluate, export_hub and report: Keras on TensorFlow.
#   docker build --file docker/trainer.Dockerfile --tag paper2hub/trainer:VERSION .
# BASE is a Debian 13 whose apt works; docker/base.sh makes one where there is no registry.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS python
# The site's own certificate authorities, if there are any.
COPY docker/certificates /usr/local/share/ca-certificates/
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm --recursive --force /var/cache/apt/* /var/lib/apt/lists/* /var/log/*
# Any user may run the image, also one without a name, so the home is a folder where all may write.
RUN useradd --uid 1000 --home-dir /tmp --no-create-home paper2hub

FROM python AS packages
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    PIP_CONFIG_FILE=/tmp/site/pip.conf \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_PYTHON=/opt/environment
# This pip stays behind.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/environment
# trainer-gpu adds the CUDA libraries.
ARG REQUIREMENTS=trainer
# The site's pip configuration, if there is one; it stays behind too.
COPY requirements/${REQUIREMENTS}.txt docker/pip.con[f] /tmp/site/
RUN /opt/pip/bin/pip install --no-deps --require-hashes --requirement /tmp/site/${REQUIREMENTS}.txt
# TensorFlow's headers are a sixth of the image, and there is no compiler that would read them.
RUN rm --recursive /opt/environment/lib/python3.13/site-packages/tensorflow/include

FROM packages AS code
COPY pyproject.toml README.md /tmp/paper2hub/
COPY trainer /tmp/paper2hub/trainer
COPY components /tmp/paper2hub/components
# The command paper2hub has nothing to do in an image.
RUN /opt/pip/bin/pip install --root /code --no-deps --no-index --no-build-isolation /tmp/paper2hub \
    && rm --recursive /code/opt/environment/bin

FROM python
COPY --from=packages /opt/environment /opt/environment
COPY --from=code /code /
ENV HOME=/tmp \
    PATH=/opt/environment/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt \
    USER=paper2hub
ARG VERSION=0.1.0
ARG SOURCE=paper2hub
ARG REVISION=unknown
LABEL org.opencontainers.image.title="paper2hub trainer" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.source="$SOURCE" \
    org.opencontainers.image.revision="$REVISION"
USER paper2hub
WORKDIR /tmp
ENTRYPOINT []
CMD ["sh", "-c", "for step in train evaluate export_hub report; do python -m components.$step --help; done"]
