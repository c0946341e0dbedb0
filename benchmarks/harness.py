"""Measuring: what tinygen costs beside the floor, taken in turn in one process, medians of both.

A floor is the least that the same result costs without tinygen: a queue and a future for a request, `json.dumps` for
saving a state. Read the ratio; the absolute numbers belong to the machine of the day. Times are CPU time of the process
(`time.process_time`), so that a busy neighbour shows less.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from statistics import median

Call = Callable[[], Awaitable[object]]
Prepare = Callable[[], AbstractAsyncContextManager[Call]]
Measure = Callable[[], float]

UNITS = {"us": 1e6, "ms": 1e3, "s": 1.0, "B": 1.0, "MB": 1e-6}


@dataclass(frozen=True)
class Row:
    """A line of the table: seconds, or bytes, or a plain number, as `unit` says."""

    name: str
    floor: float | None
    ours: float
    unit: str
    target: str = ""

    @property
    def ratio(self) -> float | None:
        return self.ours / self.floor if self.floor else None


def in_turn(floor: Measure, ours: Measure, repeats: int = 7) -> tuple[float, float]:
    """Medians of both, measured alternately after one round that does not count."""
    pairs = [(floor(), ours()) for _ in range(repeats + 1)][1:]
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def per_call(prepare: Prepare, number: int) -> float:
    """CPU seconds for one of `number` calls, in an event loop of its own; `prepare` sets up and gives the call."""

    async def measure() -> float:
        async with prepare() as call:
            for _ in range(max(1, number // 10)):
                await call()
            began = time.process_time()
            for _ in range(number):
                await call()
            return (time.process_time() - began) / number

    return asyncio.run(measure())


def compare(floor: Prepare, ours: Prepare, number: int, repeats: int = 7) -> tuple[float, float]:
    """Seconds per call of both."""
    return in_turn(lambda: per_call(floor, number), lambda: per_call(ours, number), repeats)


def show(rows: Iterable[Row]) -> None:
    """Print the table line by line, as the rows come."""
    print(f"{'workload':<50}{'floor':>12}{'tinygen':>12}{'ratio':>8}  target")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.{2 if row.ratio < 10 else 0}f}x"
        print(
            f"{row.name:<50}{_value(row.floor, row.unit):>12}{_value(row.ours, row.unit):>12}{ratio:>8}  {row.target}",
            flush=True,
        )


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if not unit:
        return f"{value:g}"
    scaled = value * UNITS[unit]
    return f"{scaled:.{0 if scaled >= 1000 else 1 if scaled >= 10 else 2}f} {unit}"
