# keystow-service alone, on the embedded default: objects, keys and tenants in the volume /data.
# docs/operations.md says how to build and run it; deploy/container/check.sh runs these steps without Docker.

# For a build that repeats byte for byte, name the image by digest: python:3.11-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# What the lock file says, by hash, and wheels alone: nothing is compiled, and nothing outside the lock runs.
FROM ${PYTHON_IMAGE} AS dependencies
COPY requirements.txt /src/
RUN python -m venv --without-pip /opt/keystow \
    && pip --python /opt/keystow/bin/python install --no-cache-dir --only-binary=:all: --require-hashes \
        -r /src/requirements.txt

# Our own two wheels, by a build backend that is pinned like everything else.
FROM ${PYTHON_IMAGE} AS wheels
COPY requirements-build.txt /src/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --only-binary=:all: --require-hashes -r /src/requirements-build.txt
COPY protos/pyproject.toml /src/protos/
COPY protos/python /src/protos/python
COPY service /src/service
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels /src/protos /src/service

FROM ${PYTHON_IMAGE}
# The image of Python leaves out compiled modules, and nobody can write them later: each process would compile anew.
RUN python -m compileall -q -x '/(site-packages|idlelib|lib2to3|tkinter|turtledemo)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && install -d -o 65532 -g 65532 -m 0700 /data
# From what changes least to what changes most: a new version of keystow is a new last layer.
COPY --from=dependencies /opt/keystow /opt/keystow
COPY LICENSE /opt/keystow/
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip --python /opt/keystow/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && pip --python /opt/keystow/bin/python check

# KEYSTOW_LISTEN_INSECURELY_BEYOND_LOOPBACK is not set, on purpose: without client certificates whoever reaches the
# port reads everything, so the server does not start until somebody says that the network protects it.
ENV PATH=/opt/keystow/bin:$PATH \
    KEYSTOW_DATA_DIR=/data \
    KEYSTOW_LISTEN=[::]:50051
USER 65532:65532
VOLUME ["/data"]
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --start-interval=2s --retries=3 \
    CMD ["keystow-service", "health"]
ENTRYPOINT ["keystow-service"]
CMD ["serve"]

ARG REVISION=unknown
LABEL org.opencontainers.image.title="keystow-service" \
      org.opencontainers.image.description="SaaS backups stored in S3, each tenant's under its own KMS key" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
