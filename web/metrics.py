"""The metrics of the web, and the route that serves them."""

import asyncpg
from litestar import Response, get
from litestar.plugins.prometheus import PrometheusConfig
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, generate_latest

from db.connect import used_ratio
from logflume.observability.metrics import ProcessCollector

PARTS_RECEIVED = Counter(
    "logflume_web_parts_received", "Parts received over HTTP and confirmed by RabbitMQ."
)
PARTS_DROPPED = Counter(
    "logflume_web_parts_dropped", "Parts received over HTTP and dropped: their token is invalid."
)
STREAMS = Gauge("logflume_web_streams", "Open live streams.")
STREAMS_DISCONNECTED = Counter(
    "logflume_web_streams_disconnected",
    "Streams closed by the server: slow reader, failed dependency or shutdown.",
)
REFUSED = Counter(
    "logflume_web_refused",
    "Connections closed because of a limit or an invalid request, before a route handled them.",
    ["reason"],
)
POOL_USED = Gauge(
    "logflume_web_database_used_ratio", "Share of the Postgres connection pool in use, 0 to 1."
)
PROCESS = ProcessCollector("web")
# By route, such as `/logs/{id}`: full paths would make a time series for each log.
REQUESTS = PrometheusConfig(
    app_name="logflume",
    prefix="logflume_web",
    group_path=True,
    buckets=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
    exclude=["^/metrics$", "^/health/"],
)


def observe_pool(pool: asyncpg.Pool) -> None:
    """Read the use of this pool at each scrape."""
    POOL_USED.set_function(lambda: used_ratio(pool))


@get("/metrics", summary="Metrics for Prometheus", tags=["health"], media_type="text/plain")
async def metrics() -> Response[bytes]:
    """Return all metrics in the Prometheus text format."""
    return Response(generate_latest(PROCESS), media_type=CONTENT_TYPE_LATEST)


ROUTES = [metrics]
