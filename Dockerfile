# syntax=docker/dockerfile:1

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.txt requirements-dev.txt ./
# The build backend is pinned by hash too; with build isolation pip would fetch an unpinned one.
RUN sed -n '/^setuptools==/,/# via/p' requirements-dev.txt >build.txt \
    && pip install --require-hashes --no-deps -r build.txt
RUN python -m venv --without-pip /opt/logflume \
    && pip --python /opt/logflume/bin/python install \
        --require-hashes --no-deps --only-binary :all: -r requirements.txt
COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/logflume/bin/python install --no-deps --no-index /wheels/*.whl

FROM python:3.11-slim-bookworm
# For `logflume db`: sqitch, its Postgres driver and psql.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libdbd-pg-perl postgresql-client sqitch \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home logflume
COPY --from=build /opt/logflume /opt/logflume
COPY deploy/healthcheck.py /opt/logflume/
ENV PATH=/opt/logflume/bin:$PATH PYTHONUNBUFFERED=1
USER logflume
HEALTHCHECK --interval=15s --timeout=10s --retries=3 --start-period=30s \
    CMD ["python", "/opt/logflume/healthcheck.py"]
ENTRYPOINT ["logflume"]
