"""What the web counts, for `/metrics`."""

import asyncpg
from litestar import Response, get
from litestar.plugins.prometheus import PrometheusConfig
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, generate_latest

from db.connect import used_ratio
from logflume.observability.metrics import Process

PARTS_RECEIVED = Counter("logflume_web_parts_received", "Parts taken over HTTP and kept.")
PARTS_DROPPED = Counter(
    "logflume_web_parts_dropped", "Parts over HTTP whose own token was not good."
)
STREAMS = Gauge("logflume_web_streams", "Readers of live streams now.")
STREAMS_SENT_AWAY = Counter(
    "logflume_web_streams_sent_away", "Readers told to come back, being too slow or at a stop."
)
POOL_USED = Gauge(
    "logflume_web_database_used_ratio", "Connections to Postgres in use, of those allowed."
)
PROCESS = Process("web")
# By route, such as `/logs/{id}`: paths as they came would be a series for each log.
REQUESTS = PrometheusConfig(
    app_name="logflume",
    prefix="logflume_web",
    group_path=True,
    buckets=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
    exclude=["^/metrics$", "^/health/"],
)


def show(pool: asyncpg.Pool) -> None:
    """Have the gauge look at this pool when somebody asks."""
    POOL_USED.set_function(lambda: used_ratio(pool))


@get("/metrics", summary="Figures for Prometheus", tags=["health"], media_type="text/plain")
async def metrics() -> Response[bytes]:
    """Answer in Prometheus' text format."""
    return Response(generate_latest(PROCESS), media_type=CONTENT_TYPE_LATEST)


ROUTES = [metrics]
