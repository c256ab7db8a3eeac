"""The budget counts waiting for the server, and nothing else."""

from __future__ import annotations

import asyncio
import time

import pytest

from llmcache_plugins.budget import Budget
from llmcache_plugins.errors import RepositoryUnavailable


async def test_an_answer_in_time_is_returned_and_paid_from_the_budget():
    budget = Budget(5)
    assert await budget.wait_for(asyncio.ensure_future(asyncio.sleep(0.02, "answer"))) == "answer"
    assert 4 < budget.left < 4.99


async def test_a_spent_budget_raises_and_leaves_the_work_alone():
    work = asyncio.ensure_future(asyncio.sleep(60))
    with pytest.raises(RepositoryUnavailable, match="budget"):
        await Budget(0.01).wait_for(work)
    assert not work.done()
    work.cancel()


async def test_what_the_work_raises_passes_through():
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Budget(1).wait_for(asyncio.ensure_future(fail()))


async def test_one_budget_is_for_all_waits_together():
    budget = Budget(0.05)
    for _ in range(2):
        with pytest.raises(RepositoryUnavailable):
            await budget.wait_for(asyncio.get_running_loop().create_future())
    assert budget.left <= 0.001


async def test_an_answer_that_is_already_there_is_taken_even_without_budget():
    budget = Budget(0.001)
    with pytest.raises(RepositoryUnavailable):
        await budget.wait_for(asyncio.get_running_loop().create_future())
    done = asyncio.get_running_loop().create_future()
    done.set_result("there")
    assert await budget.wait_for(done) == "there"


@pytest.mark.parametrize("hold_up", [time.sleep, None], ids=["blocked", "computing"])
async def test_time_the_loop_was_held_up_is_not_the_server_s(hold_up: object):
    """A reply that needs 20 ms comes within a 50 ms budget although the loop stands still for 300 ms."""

    def compute(seconds: float) -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    loop = asyncio.get_running_loop()
    loop.call_later(0.005, hold_up or compute, 0.3)
    reply = loop.create_future()

    def send() -> None:  # the request leaves only when the loop is free again
        loop.call_later(0.02, reply.set_result, "reply")

    loop.call_later(0.01, send)
    assert await Budget(0.05).wait_for(reply) == "reply"


async def test_cancelling_the_waiter_does_not_cancel_the_work():
    work = loop_future = asyncio.get_running_loop().create_future()
    waiter = asyncio.ensure_future(Budget(5).wait_for(work))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not loop_future.cancelled()
