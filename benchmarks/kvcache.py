"""What a forward pass of the reference KV cache costs: bookkeeping, placement, mask, get.

    python benchmarks/kvcache.py            about a minute, one thread, CPU time

Prints milliseconds for the size that the project promises (64 sequences, 131,072 cells, a batch of 512 tokens) under
several layouts of the cache, the growth with capacity, and the ratio to the same work done by a plain Python loop over
cells. Exits 1 when a promise is broken: more than 10 ms, or less than 50 times the loop.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch

from kvconform.kvcache import Causal
from kvconform.kvcache.config import Batch

LIMIT_MS, LIMIT_RATIO = 10.0, 50.0
SEQUENCES, CELLS, BATCH = 64, 131_072, 512
Step = tuple[list[int], list[int]]


def filled(cells: int, run: int, context: int) -> Causal:
    """A cache in which each sequence has `context` tokens, written `run` at a time in turn."""
    cache = Causal.causal()
    cache.init(torch.float16, SEQUENCES, cells // SEQUENCES, BATCH)
    cache.start_forward([0], [0], reserve=True)
    cache.put(torch.zeros(1, 1, 8), torch.zeros(1, 1, 8))
    for begin in range(0, context, run):
        for sequence in range(SEQUENCES):
            # Placed without masks, which the filling does not need.
            batch = Batch(tuple(range(begin, begin + run)), (sequence,) * run)
            cache._cells.place(batch, {}, cache._storage.move)
    return cache


def next_steps(begin: int, tokens: int, sequences: range) -> Iterator[Step]:
    """Batches of `tokens` for each of the sequences, forever."""
    while True:
        yield (
            [p for _ in sequences for p in range(begin, begin + tokens)],
            [s for s in sequences for _ in range(tokens)],
        )
        begin += tokens


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Median CPU time of one call: the clock of the wall would tell about other processes."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append((time.process_time() - start) * 1e3)
    return statistics.median(taken)


def pass_cost(cache: Causal, steps: Iterator[Step], repeats: int = 5) -> float:
    """Milliseconds of start_forward and get, as the cache grows. Two passes that allocate memory do not count."""

    def forward() -> None:
        cache.start_forward(*next(steps))
        cache.get()

    for _ in range(2):
        forward()
    return milliseconds(forward, repeats)


def loop_cost(cache: Causal, step: Step, rows: int) -> float:
    """Milliseconds of the same work by a Python loop over the cells, measured on some rows and scaled to all."""
    owners = [set(column.nonzero().flatten().tolist()) for column in cache._cells.members.T]
    positions = cache._cells.positions.tolist()

    def loop() -> None:
        free = [cell for cell, members in enumerate(owners) if not members]
        assert free
        for position, sequence in list(zip(*step, strict=True))[:rows]:
            row = [-math.inf] * len(owners)
            for cell, members in enumerate(owners):
                if sequence in members and positions[cell] <= position:
                    row[cell] = 0.0

    return milliseconds(loop, 1) * len(step[0]) / rows


def promised() -> bool:
    """The promised size, in the layouts that a server meets."""
    print(f"{SEQUENCES} sequences, {CELLS} cells, a batch of {BATCH}: start_forward and get, median")
    room = CELLS // SEQUENCES - 8 * 16  # tokens of each sequence before the passes that are measured
    kept = True
    for name, run, tokens, sequences in (
        ("sequences in one piece, then 8 tokens for each of 64", room, 8, range(64)),
        ("sequences in one piece, then 512 tokens for one", room // 2, 512, range(1)),
        ("sequences in pieces of 64, then 8 tokens for each of 64", 64, 8, range(64)),
        ("sequences in pieces of 8, then 8 tokens for each of 64", 8, 8, range(64)),
    ):
        context = room // run * run if tokens == 8 else run
        cost = pass_cost(
            filled(CELLS, run, context), next_steps(context, tokens, sequences), 1 if tokens == BATCH else 5
        )
        print(f"  {name:60} {cost:8.2f} ms (promised: {LIMIT_MS:.0f})")
        kept = kept and cost <= LIMIT_MS
    return kept


def growth() -> None:
    """The same live range in ever larger caches; then a live range as large as the cache."""
    print("cost relative to 8,192 cells")
    base: dict[str, float] = {}
    for cells in (8_192, 32_768, 131_072, 524_288):
        fixed = pass_cost(filled(cells, 64, 64), next_steps(64, 1, range(8)))
        full = pass_cost(
            filled(cells, 64, cells // SEQUENCES // 64 * 64 - 64), next_steps(cells // SEQUENCES - 64, 1, range(64))
        )
        base.setdefault("fixed", fixed)
        base.setdefault("full", full)
        print(
            f"  {cells:7} cells: {cells // 8192:2}x capacity, same live range {fixed / base['fixed']:5.1f}x; "
            f"full cache {full / base['full']:5.1f}x"
        )


def against_loop() -> bool:
    """How many times the plain loop takes."""
    cache = filled(CELLS, 64, CELLS // SEQUENCES - 128)
    steps = next_steps(CELLS // SEQUENCES - 128, 8, range(SEQUENCES))
    loop = loop_cost(cache, next(next_steps(CELLS // SEQUENCES - 128, 8, range(SEQUENCES))), rows=4)
    ratio = loop / pass_cost(cache, steps)
    print(f"a Python loop over the cells takes {ratio:.0f} times as long (promised {LIMIT_RATIO:.0f})")
    return ratio >= LIMIT_RATIO


def main() -> int:
    """Run all, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    torch.set_num_threads(parser.parse_args().threads)
    kept = promised()
    growth()
    kept = against_loop() and kept
    print("all promises kept" if kept else "a promise is broken")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
