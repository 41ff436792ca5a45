"""`logflume rejected`: the messages that broke the wire contract, and what becomes of them."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

import click

from drain.dead_letter_queue import KeptReject, kept_rejects
from logflume.errors import LogflumeError
from logflume.settings import load_settings


@click.group()
def rejected() -> None:
    """Look at messages that broke the contract, send them on once more, or drop them.

    A drain keeps them in a queue of their own, with the reason. The ids are those that `list`
    prints.
    """


@rejected.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
def list_(limit: int) -> None:
    """List the oldest: id, time, bytes, reason."""
    asyncio.run(_list(limit))


async def _list(limit: int) -> None:
    count = 0
    async with kept_rejects(_url()) as rejects:
        async for one in rejects:
            count += 1
            if count > limit:
                click.echo("and more; --limit shows them")
                return
            click.echo(f"{one.id}  {one.at}  {len(one.body):>8}  {one.reason}")
    if not count:
        click.echo("there are none")


@rejected.command()
@click.argument("id_", metavar="ID")
def show(id_: str) -> None:
    """Write one message's bytes to standard output, and why it was rejected to standard error."""
    asyncio.run(_show(id_))


async def _show(id_: str) -> None:
    async with kept_rejects(_url()) as rejects:
        async for one in rejects:
            if one.id == id_:
                click.echo(f"{one.at}: {one.reason}", err=True)
                sys.stdout.buffer.write(one.body)
                return
    raise _unknown({id_})


def _which(command: Callable[..., None]) -> Callable[..., None]:
    ids = click.argument("ids", nargs=-1, metavar="[ID]...")
    return ids(click.option("--all", "all_", is_flag=True, help="Every one there is.")(command))


@rejected.command()
@_which
def requeue(ids: tuple[str, ...], *, all_: bool) -> None:
    """Send messages on to the drains as they came, as after a mend; --all takes every one.

    A message that still breaks the contract comes back, with a new time.
    """
    click.echo(f"{asyncio.run(_each(ids, KeptReject.requeue, all_=all_))} sent on")


@rejected.command()
@_which
def drop(ids: tuple[str, ...], *, all_: bool) -> None:
    """Delete messages for good; --all takes every one."""
    click.echo(f"{asyncio.run(_each(ids, KeptReject.drop, all_=all_))} dropped")


async def _each(
    ids: tuple[str, ...], what: Callable[[KeptReject], Awaitable[None]], *, all_: bool
) -> int:
    if bool(ids) == all_:
        raise click.UsageError("give the ids that `logflume rejected list` prints, or --all")
    wanted, count = set(ids), 0
    async with kept_rejects(_url()) as rejects:
        async for one in rejects:
            if all_ or one.id in wanted:
                await what(one)
                wanted.discard(one.id)
                count += 1
            if not (all_ or wanted):
                break
    if wanted:
        raise _unknown(wanted)
    return count


def _url() -> str:
    return load_settings().amqp.url.get_secret_value()


def _unknown(ids: set[str]) -> LogflumeError:
    names = ", ".join(sorted(ids))
    return LogflumeError(f"no rejected message is called {names}: see `logflume rejected list`")
