"""`logflume rejected`: the messages in the dead-letter queue."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import click

from db.connect import open_pool
from drain.dead_letters import Rejected, dead_letters
from drain.suspension import resume_drains
from logflume.errors import LogflumeError
from logflume.settings import load_settings
from logflume_cli.output import json_option, print_json
from logflume_cli.terminal import echo


@click.group()
def rejected() -> None:
    """List, requeue or drop dead-lettered messages, or resume suspended drains.

    Drains move invalid messages to the dead-letter queue, with the reason, or to Postgres if they
    are too large for RabbitMQ. IDs are those printed by `list`.
    """


@rejected.command("list")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Maximum number of messages to list.",
)
@json_option
def list_(limit: int, *, as_json: bool) -> None:
    """List the oldest messages: id, time, bytes, reason."""
    asyncio.run(_list_as_json(limit) if as_json else _list(limit))


async def _list_as_json(limit: int) -> None:
    listed: list[dict[str, object]] = []
    async with _dead_letters() as letters:
        async for letter in letters:
            if len(listed) == limit:
                break
            listed.append(
                {"id": letter.id, "at": letter.at, "bytes": letter.size, "reason": letter.reason}
            )
    print_json(listed)


async def _list(limit: int) -> None:
    count = 0
    async with _dead_letters() as letters:
        async for letter in letters:
            count += 1
            if count > limit:
                click.echo("there are more; raise --limit to list them")
                return
            echo(f"{letter.id}  {letter.at}  {letter.size:>8}  {letter.reason}")
    if not count:
        click.echo("the dead-letter queue is empty")


@rejected.command()
@click.argument("id_", metavar="ID")
def show(id_: str) -> None:
    """Write a message's body to standard output, its reason and sender to standard error."""
    asyncio.run(_show(id_))


async def _show(id_: str) -> None:
    async with _dead_letters() as letters:
        async for letter in letters:
            if letter.id == id_:
                echo(f"{letter.at}: {letter.reason}", err=True)
                if letter.sender:
                    echo(f"sent with {letter.sender}", err=True)
                body = await letter.read()
                if sys.stdout.isatty():
                    for line in body.decode("utf-8", "backslashreplace").split("\n"):
                        echo(line)
                else:
                    sys.stdout.buffer.write(body)
                return
    raise _unknown({id_})


def _selection(command: Callable[..., None]) -> Callable[..., None]:
    ids = click.argument("ids", nargs=-1, metavar="[ID]...")
    return ids(click.option("--all", "all_", is_flag=True, help="Select all messages.")(command))


@rejected.command()
@_selection
def requeue(ids: tuple[str, ...], *, all_: bool) -> None:
    """Requeue messages unchanged, e.g. after a fix; --all requeues every one.

    A message that is still invalid returns to the dead-letter queue, with a new time and id.
    """
    click.echo(f"{asyncio.run(_each(ids, lambda letter: letter.requeue(), all_=all_))} requeued")


@rejected.command()
@_selection
def drop(ids: tuple[str, ...], *, all_: bool) -> None:
    """Delete messages permanently; --all deletes every one."""
    click.echo(f"{asyncio.run(_each(ids, lambda letter: letter.drop(), all_=all_))} dropped")


@rejected.command()
def resume() -> None:
    """Resume all drains that are suspended because too many messages were invalid."""
    is_any = asyncio.run(resume_drains(load_settings().amqp.url.get_secret_value()))
    click.echo("suspended drains resume" if is_any else "no drain is suspended")


async def _each(
    ids: tuple[str, ...], action: Callable[[Rejected], Awaitable[None]], *, all_: bool
) -> int:
    if bool(ids) == all_:
        raise click.UsageError("give IDs printed by `logflume rejected list`, or --all")
    wanted, count = set(ids), 0
    async with _dead_letters() as letters:
        async for letter in letters:
            if all_ or letter.id in wanted:
                await action(letter)
                wanted.discard(letter.id)
                count += 1
            if not (all_ or wanted):
                break
    if wanted:
        raise _unknown(wanted, count)
    return count


@asynccontextmanager
async def _dead_letters() -> AsyncIterator[AsyncIterator[Rejected]]:
    settings = load_settings()
    url = settings.amqp.url.get_secret_value()
    async with (
        await open_pool(settings.database, 1) as pool,
        pool.acquire() as database,
        dead_letters(url, database) as letters,
    ):
        yield letters


def _unknown(ids: set[str], done: int = 0) -> LogflumeError:
    names = ", ".join(sorted(ids))
    others = f" ({done} others done)" if done else ""
    return LogflumeError(
        f"no rejected message with id {names}; see `logflume rejected list`{others}"
    )
