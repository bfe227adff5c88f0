# The steps create_tfrecords and preprocess: Beam, TF Transform, and TFX with TFDV.
#   docker build --file docker/data.Dockerfile --tag paper2hub/data:VERSION .
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
    && apt-get install --yes --no-install-recommends g++ gcc python3-dev python3-venv
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    PIP_CONFIG_FILE=/tmp/site/pip.conf \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_PYTHON=/opt/environment
# TFX packs modules into wheels as it runs, so this environment has a pip of its own as well.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/environment
# The site's pip configuration, if there is one; it stays behind too.
COPY requirements/data.txt docker/pip.con[f] /tmp/site/
# pyfarmhash comes as source alone, and is built with the setuptools and wheel that are locked.
RUN sed -n '/^\(setuptools\|wheel\)==/,/[^\\]$/p' /tmp/site/data.txt >/tmp/site/build.txt \
    && /opt/pip/bin/pip install --no-deps --require-hashes --requirement /tmp/site/build.txt \
    && /opt/pip/bin/pip install --no-deps --require-hashes --no-build-isolation \
        --requirement /tmp/site/data.txt
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
COPY docker/entrypoint.sh /usr/local/bin/entrypoint
COPY --from=code /code /
ENV HOME=/tmp \
    PATH=/opt/environment/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt \
    USER=paper2hub
ARG VERSION=0.1.0
ARG SOURCE=paper2hub
ARG REVISION=unknown
LABEL org.opencontainers.image.title="paper2hub data" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.source="$SOURCE" \
    org.opencontainers.image.revision="$REVISION"
USER paper2hub
WORKDIR /tmp
# Dataflow, Flink and Spark start workers of this image, by flags and without a command.
ENTRYPOINT ["sh", "/usr/local/bin/entrypoint"]
CMD ["sh", "-c", "for step in create_tfrecords preprocess; do python -m components.$step --help; done"]
