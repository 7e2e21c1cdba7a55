from __future__ import annotations

import pytest

from matrix.collect.machines.messages import Began, Done, Hello, Lines, Message, Note, pack, unpack

MESSAGES = (
    Hello("a", "2.5", "machine"),
    Began("a", "cell"),
    Lines("a", "cell", 0, b"line\n"),
    Done("a", "cell", 1.5, "{}", {"cell.jsonl": b"x"}, b"words"),
    Note("a", "text"),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    packed = pack(message)
    assert packed["kind"] == type(message).__name__
    assert unpack(packed) == message
