"""`logflume retention`: what the policies would delete, and rules for the store."""

import asyncio
import json
from typing import Any

import click

from db import retention as db
from db.connect import open_pool
from logflume.archive.store import LOGS_PREFIX
from logflume.domain import Policy
from logflume.errors import SettingsError
from logflume.settings import Settings, load_settings
from logflume_cli.schedules import retention_policies

SAMPLE = 5
# The store deletes what a policy should have deleted so long ago: leftovers, never a log that a row
# still points to.
LATER_DAYS = 30
UPLOAD_DAYS = 7


@click.group()
def retention() -> None:
    """Show what retention would delete, and rules for the store.

    The policies are LOGFLUME_RETENTION__POLICIES; `logflume schedules apply` puts them in force, or
    ends them where there are none.
    """


@retention.command()
def plan() -> None:
    """Tell what each policy would delete now; deletes nothing."""
    settings = load_settings()
    for policy, found in asyncio.run(_plan(settings, _policies(settings))):
        click.echo(f"{policy.name}: {found.logs} logs, {found.bytes} bytes ({_words(policy)})")
        if found.held:
            click.echo(f"  {found.held} more are under legal hold and stay")
        if found.sample:
            click.echo(f"  the oldest: jobs {', '.join(str(job_id) for job_id in found.sample)}")


async def _plan(settings: Settings, policies: list[Policy]) -> list[tuple[Policy, db.Plan]]:
    async with await open_pool(settings.database, 1) as pool, pool.acquire() as connection:
        return [(policy, await db.plan(connection, policy, SAMPLE)) for policy in policies]


@retention.command()
def rules() -> None:
    """Print a lifecycle configuration for the bucket, as JSON.

    Its rules delete, 30 days after retention should have, what that left behind, and uploads that
    were never completed. Copies that legal holds keep are not touched.
    """
    policies = _policies(load_settings())
    click.echo(json.dumps({"Rules": [*_rules(policies)]}, indent=2))
    for policy in policies:
        if policy.state != "done":
            click.echo(f"{policy.name}: the store cannot tell this state, so no rule", err=True)


def _rules(policies: list[Policy]) -> list[dict[str, Any]]:
    logs = LOGS_PREFIX
    return [
        *(
            {
                "ID": f"logflume-{policy.name}",
                "Status": "Enabled",
                "Filter": _filter(logs, policy.larger_than_bytes),
                "Expiration": {"Days": policy.older_than_days + LATER_DAYS},
            }
            for policy in policies
            if policy.state == "done"
        ),
        {
            "ID": "logflume-uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": logs},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UPLOAD_DAYS},
        },
    ]


def _filter(prefix: str, larger_than_bytes: int | None) -> dict[str, Any]:
    if larger_than_bytes is None:
        return {"Prefix": prefix}
    return {"And": {"Prefix": prefix, "ObjectSizeGreaterThan": larger_than_bytes}}


def _policies(settings: Settings) -> list[Policy]:
    if policies := retention_policies(settings):
        return policies
    raise SettingsError("LOGFLUME_RETENTION__POLICIES is not set: nothing is ever deleted")


def _words(policy: Policy) -> str:
    what = "text" if policy.delete == "archive" else "row and text"
    size = "" if policy.larger_than_bytes is None else f", above {policy.larger_than_bytes} bytes"
    return f"{what} of logs {policy.state} for more than {policy.older_than_days} days{size}"
