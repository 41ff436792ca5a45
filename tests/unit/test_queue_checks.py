"""What makes RabbitMQ drop messages of a queue, and the change that prevents it."""

import pytest

from drain.queue_checks import Policy, Queue, find_problems
from logflume.contract import DEAD_LETTER_QUEUE, QUEUE


def policy(definition, name="p", pattern="^reporting", priority=0, apply_to="queues"):
    return Policy(name, pattern, definition, priority, apply_to)


def problems(version=3, policies=(), operator=(), name=QUEUE, type_="classic", **arguments):
    named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    return find_problems(Queue(name, type_, named), [[*policies], [*operator]], version, "v")


def test_plain_queues_drop_nothing():
    assert problems() == problems(4) == problems(3, type_="quorum") == []


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ({"message-ttl": 5}, ["deletes messages after 5 ms", "message-ttl", "policy p"]),
        ({"expires": 5}, ["is deleted", "expires"]),
        ({"max-length": 5}, ["beyond 5 messages", "drop-head"]),
        ({"max-length-bytes": 5, "overflow": "reject-publish"}, ["5 bytes", "reject-publish"]),
    ],
)
def test_a_policy_that_drops_messages_is_named(definition, words):
    [problem] = problems(policies=[policy(definition)])
    assert problem.startswith(f"queue {QUEUE} ")
    assert all(word in problem for word in words)


def test_only_the_policy_that_applies_counts():
    harmless = policy({}, "harmless", priority=1)
    ttl = {"message-ttl": 1}
    others = [policy(ttl, pattern="^x"), policy(ttl, apply_to="exchanges"), policy(ttl, "lower")]
    assert problems(policies=[harmless, *others]) == []
    assert problems(policies=[policy(ttl, apply_to="quorum_queues")]) == []
    assert problems(policies=[policy(ttl, pattern="(?|broken")]) == []
    [problem] = problems(policies=[harmless], operator=[policy(ttl, "op")])
    assert "policy op" in problem


def test_the_smallest_limit_applies():
    [problem] = problems(policies=[policy({"message-ttl": 9})], message_ttl=4)
    assert "after 4 ms" in problem and "arguments" in problem


def test_a_dead_letter_queue_may_refuse_but_not_drop():
    refusing = {"max-length": 5, "overflow": "reject-publish"}
    assert problems(name=DEAD_LETTER_QUEUE, policies=[policy(refusing)]) == []
    assert problems(name=DEAD_LETTER_QUEUE, policies=[policy({"max-length": 5})])


def test_quorum_queues_limit_deliveries_since_rabbitmq_4():
    [problem] = problems(4, type_="quorum")
    assert "after 20 deliveries" in problem
    assert "set_policy -p v" in problem and "'{\"delivery-limit\": -1}'" in problem
    [problem] = problems(4, [policy({"max-in-memory-length": 1})], type_="quorum")
    assert "add '\"delivery-limit\": -1' to policy p" in problem
    unlimited = policy({"delivery-limit": -1})
    assert problems(4, [unlimited], type_="quorum") == []
    [problem] = problems(4, [unlimited], type_="quorum", delivery_limit=3)
    assert "after 3 deliveries" in problem
    [problem] = problems(3, [policy({"delivery-limit": 7})], type_="quorum")
    assert "remove delivery-limit from policy p" in problem
    assert problems(4, [policy({"delivery-limit": 7})], type_="classic") == []


def test_a_stream_cannot_be_consumed():
    [problem] = problems(type_="stream")
    assert "declare it again" in problem
