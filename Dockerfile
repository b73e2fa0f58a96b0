# The coordinator's image: dependencies pinned by hash, no compiler and no pip cache, no root.
# Both stages take the same base, because a virtual environment remembers its interpreter's path.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/coordinator
WORKDIR /src
# Dependencies change rarely and the code often: two layers.
COPY requirements/runtime.txt requirements/
RUN /opt/coordinator/bin/pip install --require-hashes -r requirements/runtime.txt
COPY requirements/build.txt requirements/
RUN python -m venv /opt/build && /opt/build/bin/pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml LICENSE README.md ./
COPY coordinator coordinator
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/coordinator/bin/pip install --no-deps --no-index /wheels/*.whl \
    && /opt/coordinator/bin/python -m compileall -q /opt/coordinator

FROM ${BASE}
LABEL org.opencontainers.image.title="coordinator" \
      org.opencontainers.image.description="Applies units of work over PostgreSQL and MongoDB, submitted by Kafka" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/coordinator /opt/coordinator
# A number and not a name, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /etc/coordinator
ENV PATH=/opt/coordinator/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    COORDINATOR_CONFIG=/etc/coordinator/coordinator.toml
# Asks from inside, where the default address (127.0.0.1:8080) answers; any status but 2xx raises.
# Never through a proxy: engines put HTTP_PROXY into containers, and a proxy knows no such address.
ENV COORDINATOR_HEALTH_URL=http://127.0.0.1:8080/livez
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(os.environ['COORDINATOR_HEALTH_URL'], timeout=2)"]
# The daemon drains on SIGTERM.
STOPSIGNAL SIGTERM
ENTRYPOINT ["coordinator"]
CMD ["run"]
