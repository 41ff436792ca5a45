"""Tasks end when they are cancelled, whatever libraries do with a cancellation."""

import asyncio

from logflume.tasks import cancel, first


async def test_a_task_ends_that_misses_the_first_cancellation():
    answer = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await asyncio.wait_for(answer, 60)
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    answer.set_result(None)  # at the same moment as the cancellation
    async with asyncio.timeout(10):
        await cancel([task])
    assert task.cancelled()


async def test_the_first_one_cancels_the_others():
    ended = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("slow")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError

    await first(slow(), fails())
    assert ended == ["slow"]
