"""Reads the metrics of a process."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
from prometheus_client.parser import text_string_to_metric_families

from logflume.observability.health import Check
from logflume.observability.metrics import Readings
from logflume.observability.server import metrics_server
from logflume.settings import Settings


def parsed(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@asynccontextmanager
async def shown(
    name: str,
    settings: Settings,
    dependencies: Mapping[str, Check],
    readings: Readings,
    sdk_metrics: str = "",
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of what a process shows, on a port that is free."""
    telemetry = settings.telemetry.model_copy(update={"port": 0})
    async with (
        metrics_server(name, telemetry, dependencies, readings, sdk_metrics) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


async def scrape(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return parsed(answer.text)
