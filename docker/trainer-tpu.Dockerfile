# The step train on Cloud TPU: Keras on JAX; TensorFlow, without devices, feeds it with tf.data.
#   docker build --file docker/trainer-tpu.Dockerfile --tag paper2hub/trainer-tpu:VERSION .
# The base is anything that has `python` 3.11, `pip` and CA certificates; see base.Dockerfile.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS dependencies
COPY docker/certificates /usr/local/share/ca-certificates/
# The site's pip configuration, if there is one; it stays in this stage.
COPY requirements/trainer-tpu.txt docker/pip.con[f] /tmp/site/
RUN update-ca-certificates && python -m venv /opt/environment
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    PIP_CONFIG_FILE=/tmp/site/pip.conf \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN /opt/environment/bin/pip install --no-deps --require-hashes --requirement /tmp/site/trainer-tpu.txt

FROM ${BASE}
COPY docker/certificates /usr/local/share/ca-certificates/
RUN update-ca-certificates && useradd --uid 1000 --create-home paper2hub
COPY --from=dependencies /opt/environment /opt/environment
ENV PATH=/opt/environment/bin:$PATH \
    KERAS_BACKEND=jax \
    PYTHONUNBUFFERED=1 \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
COPY pyproject.toml README.md /opt/paper2hub/
COPY trainer /opt/paper2hub/trainer
COPY components /opt/paper2hub/components
RUN pip install --no-cache-dir --no-deps --no-index --no-build-isolation /opt/paper2hub \
    && rm --recursive /opt/paper2hub
USER paper2hub
WORKDIR /home/paper2hub
ENTRYPOINT []
CMD ["python", "-m", "components.train", "--help"]
