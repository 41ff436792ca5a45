"""`logflume retention`: previews the retention policies and prints bucket rules."""

import json
from typing import Any

import click

from db import retention as db
from db.connect import Connection
from logflume.archive.store import LOGS_PREFIX
from logflume.domain import Policy
from logflume.errors import SettingsError
from logflume.settings import load_settings
from logflume_cli.database import on_database
from logflume_cli.options import retention_policies
from logflume_cli.output import json_option, print_json

SAMPLE = 5
# The bucket rules run this much later than retention: they delete only leftovers, never an object
# that a row still refers to.
RULE_DELAY_DAYS = 30
UPLOAD_DAYS = 7


@click.group()
def retention() -> None:
    """Preview what retention would delete, and print bucket lifecycle rules.

    The policies are in LOGFLUME_RETENTION__POLICIES; `logflume schedules apply` activates them, or
    deactivates retention if there are none.
    """


@retention.command()
@json_option
def plan(*, as_json: bool) -> None:
    """Show what each policy would delete now, without deleting it."""
    policies = _policies()
    plans = on_database(lambda connection: _plan(connection, policies))
    if as_json:
        print_json({policy.name: plan._asdict() for policy, plan in plans})
        return
    for policy, plan in plans:
        click.echo(f"{policy.name}: {plan.logs} logs, {plan.bytes} bytes ({_describe(policy)})")
        if plan.held:
            click.echo(f"  not deleted: {plan.held} more under legal hold")
        if plan.sample:
            click.echo(f"  oldest: jobs {', '.join(map(str, plan.sample))}")


async def _plan(connection: Connection, policies: list[Policy]) -> list[tuple[Policy, db.Plan]]:
    return [(policy, await db.plan(connection, policy, SAMPLE)) for policy in policies]


@retention.command()
def rules() -> None:
    """Print a lifecycle configuration for the bucket as JSON.

    Its rules delete archived logs that retention should have deleted 30 days earlier, and abort
    incomplete uploads. They do not apply to hold copies.
    """
    policies = _policies()
    click.echo(json.dumps({"Rules": [*_rules(policies)]}, indent=2))
    for policy in policies:
        if policy.state != "done":
            click.echo(
                f"{policy.name}: no rule, as the store does not know the state {policy.state!r}",
                err=True,
            )


def _rules(policies: list[Policy]) -> list[dict[str, Any]]:
    logs = LOGS_PREFIX
    return [
        *(
            {
                "ID": f"logflume-{policy.name}",
                "Status": "Enabled",
                "Filter": _filter(logs, policy.larger_than_bytes),
                "Expiration": {"Days": policy.older_than_days + RULE_DELAY_DAYS},
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


def _policies() -> list[Policy]:
    if policies := retention_policies(load_settings()):
        return policies
    raise SettingsError(
        "LOGFLUME_RETENTION__POLICIES is not set, so no log ever expires: see docs/retention.md"
    )


def _describe(policy: Policy) -> str:
    target = "text" if policy.delete == "archive" else "row and text"
    size = "" if policy.larger_than_bytes is None else f", above {policy.larger_than_bytes} bytes"
    return f"{target} of logs {policy.state} for more than {policy.older_than_days} days{size}"
