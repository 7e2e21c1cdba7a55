"""The way between a run and its tasks: a queue of messages to the run, and a value that tells how often it was stopped.

The run sets the value again and again, with a number that grows. A task that sees the same number for a long time knows
that nobody waits for it any more, however the run ended.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from matrix.collect.machines.messages import Hello, Message, Work, pack, unpack

ANSWER = 120.0
"""Seconds that a task waits for its work."""


class Channel:
    """The channel of one run.

    Args:
        run: its name.
        client: a client of Dask, of the run or of a task.
    """

    def __init__(self, run: str, client: Any) -> None:
        from distributed import Queue, Variable

        self._run, self._client, self._variable = run, client, Variable
        self._queue = Queue(run, client=client)
        self._beat = Variable(f"{run}-beat", client=client)
        self._number = 0

    def tell(self, message: Message) -> None:
        """A task tells the run."""
        self._queue.put(pack(message))

    def ask(self, hello: Hello) -> Work:
        """A task asks the run what to do; raises TimeoutError where nobody answers."""
        self.tell(hello)
        answer = self._answer(hello.attempt)
        work = Work(**answer.get(timeout=ANSWER))
        answer.delete()
        return work

    def answer(self, attempt: str, work: Work) -> None:
        """The run answers a task."""
        self._answer(attempt).set(asdict(work))

    def messages(self) -> list[Message]:
        """What tasks told the run since the last call."""
        return [unpack(each) for each in self._queue.get(batch=True)]

    def beat(self, stop: int) -> None:
        """The run says that it is there, and how often it was asked to stop."""
        self._number += 1
        self._beat.set([self._number, stop])

    def heard(self) -> tuple[int, int]:
        """The number of the last beat, and how often the run was asked to stop."""
        number, stop = self._beat.get(timeout=ANSWER)
        return number, stop

    def close(self) -> None:
        """The run is over: nothing of it stays with the scheduler."""
        self._beat.delete()
        self._queue.close()

    def _answer(self, attempt: str) -> Any:
        return self._variable(f"{self._run}-{attempt}", client=self._client)
