"""Prints what tinygen costs.

usage: python -m benchmarks [--list] [NAME ...]

Without names, everything but what needs a package index (`installed`). A name stands for all workloads that begin
with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from . import actors, models, startup, streams, turns, wrappers
from .harness import Row, show


def _model_calls() -> Iterator[Row]:
    try:
        for name, floor, ours in models.workloads():
            yield Row(f"model call: {name}", floor(), ours(), "ms")
    finally:
        models.server.stop()


WORKLOADS: dict[str, Callable[[], Iterable[Row]]] = {
    "import": startup.importing,
    "process": startup.offline_run,
    "process-client": startup.making_a_client,
    "request": actors.request,
    "request-with": actors.additions,
    "in-flight": actors.in_flight,
    "agents-10000": actors.many_agents,
    "publish": actors.publish,
    "turn": partial(turns.turn, 0),
    "turn-tool": partial(turns.turn, 1),
    "turn-tools": partial(turns.turn, 5),
    "team-100": partial(turns.round_robin, 100),
    "team-2000": partial(turns.round_robin, 2000),
    "state": turns.state,
    "model": _model_calls,
    "cache": wrappers.caches,
    "wrappers": wrappers.stacks,
    "first-piece": wrappers.first_pieces,
    "first-piece-wire": streams.first_pieces,
    "streams-10000": streams.one_after_another,
    "idle": actors.idle_agents,
    "installed": startup.installed_size,
}
ON_REQUEST = {"installed"}
TARGETS = {  # beginning of a row's name -> what we want it to be, as a ratio to the floor where it ends with an x
    "import tinygen": "about 1 ms",
    "process: offline": "<= 1.3x",
    "installed: distributions": "<= 8",
    "installed: size": "<= 3 MB",
    "request and answer": "<= 2.5x",
    "20,000 requests in flight": "<= 2x",
    "10,000 agents": "about 1x",
    "publish": "<= 10x",
    "an idle agent": "<= 400 B",
    "assistant turn, no tool: on_messages": "<= 25 us",
    "assistant turn, one tool: on_messages": "<= 60 us",
    "assistant turn, five parallel tools: on_messages": "<= 160 us",
    "round robin of three assistants": "<= 60 us, no growth",
    "save": "<= 3x",
    "load": "<= 3x",
    "cache hit: in memory": "<= 50 us",
    "cache hit: on disk": "<= 300 us",
    "call: stack": "<= 40 us more",
    "first piece": "<= 200 us more",
    "model call: one": "<= 1.2x",
    "model call: history": "<= 1.5x",
    "model call: stream": "<= 1.5x",
    "model call: 100 calls": "<= 1.5x",
    "model call: 1,000 calls": "<= 15x",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What tinygen costs, beside a floor.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="workloads to measure; all if left out")
    parser.add_argument("--list", action="store_true", help="list the workloads")
    arguments = parser.parse_args()
    if arguments.list:
        print(*WORKLOADS, sep="\n")
        return
    chosen = [name for name in WORKLOADS if name.startswith(tuple(arguments.names))]
    if not arguments.names:
        chosen = [name for name in WORKLOADS if name not in ON_REQUEST]
    if not chosen:
        parser.error(f"no workload begins with {arguments.names!r}; --list shows them")
    show(_rows(chosen))


def _rows(chosen: Iterable[str]) -> Iterator[Row]:
    for name in chosen:
        for row in WORKLOADS[name]():
            target = next((text for start, text in TARGETS.items() if row.name.startswith(start)), "")
            yield replace(row, target=target)


if __name__ == "__main__":
    main()
