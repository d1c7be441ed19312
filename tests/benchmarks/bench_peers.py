"""Toril beside what people would pick instead, all on the same server, round after round.

    make bench-peers ARGS='--rounds 3 --only drain,latency --peers toril,node'

In each round every peer runs every workload once, in an order that turns around from round to round. Machines are shared, and their
speed changes by the minute: so figures of different runs can't be compared, and what counts is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.peers import CACHE, Peer, all_peers
from tests.benchmarks.report import table
from tests.benchmarks.workloads import WORKLOADS

RESULTS: Final = CACHE / "results.json"


def chosen(text: str | None, known: Collection[str], what: str) -> list[str]:
    """The names in an argument, or all. Ends the program if one is unknown."""
    names = list(known) if text is None else text.split(",")
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def plan(workloads: Iterable[str], peers: Iterable[Peer], rounds: int) -> Iterable[tuple[int, str, Peer]]:
    """Who runs what, in which order."""
    everybody = list(peers)
    for number in range(rounds):
        for key in workloads:
            takes_part = [peer for peer in everybody if not WORKLOADS[key].peers or peer.key in WORKLOADS[key].peers]
            for peer in takes_part[:: -1 if number % 2 else 1]:
                yield number + 1, key, peer


async def measure(workloads: list[str], peers: list[Peer], rounds: int) -> list[dict[str, Any]]:
    """The figures of all rounds."""
    found: list[dict[str, Any]] = []
    for number, key, peer in plan(workloads, peers, rounds):
        load = os.getloadavg()[0]
        started = time.perf_counter()
        figures = await WORKLOADS[key].measure(peer)
        took = time.perf_counter() - started
        found.append({"round": number, "workload": key, "peer": peer.key, "load": load, "figures": figures})
        shown = "  ".join(f"{name} {value:,.2f}" for name, value in figures.items())
        print(f"round {number}  {key:8}  {peer.key:13} {took:5.1f} s  load {load:.1f}  {shown}", flush=True)
    return found


def main() -> None:
    """Read the arguments, measure, print the table, and keep the figures."""
    everybody = all_peers()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", help=f"some of {','.join(everybody)}")
    parser.add_argument("--only", "--workloads", dest="only", help=f"some of {','.join(WORKLOADS)}")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures are written")
    options = parser.parse_args()
    workloads = chosen(options.only, WORKLOADS, "workload")
    peers: list[Peer] = []
    for key in chosen(options.peers, everybody, "peer"):
        if reason := everybody[key].why_missing():
            print(f"skipped: {key} {reason}")
        else:
            everybody[key].install()
            peers.append(everybody[key])
    results = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load_before": os.getloadavg()},
        "versions": {peer.key: peer.version() for peer in peers},
        "rounds": asyncio.run(measure(workloads, peers, options.rounds)),
    }
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
