"""What the web counts, for `/metrics`."""

from litestar import Response, get
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, generate_latest

PARTS_RECEIVED = Counter("logflume_web_parts_received", "Parts taken over HTTP and kept.")
PARTS_DROPPED = Counter(
    "logflume_web_parts_dropped", "Parts over HTTP whose own token was not good."
)
STREAMS = Gauge("logflume_web_streams", "Readers of live streams now.")
STREAMS_SENT_AWAY = Counter(
    "logflume_web_streams_sent_away", "Readers told to come back, being too slow or at a stop."
)


@get("/metrics", summary="Figures for Prometheus", tags=["health"], media_type="text/plain")
async def metrics() -> Response[bytes]:
    """Answer in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


ROUTES = [metrics]
