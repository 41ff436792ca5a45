# syntax=docker/dockerfile:1

# Debian 13 has Python 3.13, and sqitch and psql for `logflume db`.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements.txt requirements-dev.txt ./
# The build backend is pinned by hash too; with build isolation pip would fetch an unpinned one.
RUN python3 -m venv /opt/build \
    && sed -n '/^setuptools==/,/# via/p' requirements-dev.txt >build.txt \
    && /opt/build/bin/pip install --require-hashes --no-deps -r build.txt
RUN python3 -m venv --without-pip /opt/logflume \
    && /opt/build/bin/pip --python /opt/logflume/bin/python install \
        --require-hashes --no-deps --only-binary :all: -r requirements.txt
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/logflume/bin/python install \
        --no-deps --no-index /wheels/*.whl

FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates libdbd-pg-perl postgresql-client python3 sqitch \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home logflume
COPY --from=build /opt/logflume /opt/logflume
COPY deploy/healthcheck.py /opt/logflume/
ENV PATH=/opt/logflume/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
HEALTHCHECK --interval=15s --timeout=10s --retries=3 --start-period=30s \
    CMD ["python", "/opt/logflume/healthcheck.py"]
ENTRYPOINT ["logflume"]
