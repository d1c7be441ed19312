"""Toril beside what people would pick instead, all on the same server, round after round.

    make bench-peers ARGS='--rounds 3 --only drain,latency --peers toril,node'

In each round every peer runs every workload once, in an order that turns around from round to round. Machines are shared, and their
speed changes by the minute: so figures of different runs can't be compared, and what counts is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
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
from tests.benchmarks.stand import WrongRunError
from tests.benchmarks.workloads import WORKLOADS
from tests.line_process import PeerError

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
            takes_part = [peer for peer in everybody if WORKLOADS[key].is_for(peer)]
            for peer in takes_part[:: -1 if number % 2 else 1]:
                yield number + 1, key, peer


async def measure(number: int, key: str, peer: Peer, share: float) -> dict[str, Any]:
    """A row of the results: the figures of one peer in one round, or what went wrong."""
    row: dict[str, Any] = {"round": number, "workload": key, "peer": peer.key, "load": round(os.getloadavg()[0], 1)}
    started = time.perf_counter()
    try:
        row["figures"] = await WORKLOADS[key].measure(peer, share)
    except (WrongRunError, PeerError, TimeoutError) as error:
        row |= {"figures": {}, "error": f"{type(error).__name__}: {error}"}
    shown = row.get("error") or "  ".join(f"{name} {value:,.2f}" for name, value in row["figures"].items())
    took = time.perf_counter() - started
    print(f"round {number}  {key:8} {peer.key:13} {took:5.1f} s  load {row['load']:4.1f}  {shown}", flush=True)
    return row


def processor() -> str:
    """Its name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Read the arguments, measure, print the table, and keep the figures. Ends with 1 if something could not be measured."""
    everybody = all_peers()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", help=f"some of {','.join(everybody)}")
    parser.add_argument("--only", "--workloads", dest="only", help=f"some of {','.join(WORKLOADS)}")
    parser.add_argument("--share", type=float, default=1, help="of the jobs: 0.02 shows in a few minutes whether everything runs")
    parser.add_argument("--keep", action="store_true", help="keep the figures of the last run's other workloads beside the new ones")
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

    everybody["toril"].install()  # it fills the queue also for others

    results: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {
            "cores": os.cpu_count(),
            "processor": processor(),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        },
        "versions": {peer.key: peer.version() for peer in peers},
        "share": options.share,
        "rounds": [],
    }
    options.json.parent.mkdir(exist_ok=True)
    if options.keep and options.json.exists():
        last = json.loads(options.json.read_text())
        results["versions"] = last["versions"] | results["versions"]
        results["rounds"] = [row for row in last["rounds"] if row["workload"] not in workloads]
    with contextlib.suppress(KeyboardInterrupt):  # what was measured until then counts
        for number, key, peer in plan(workloads, peers, options.rounds):
            results["rounds"].append(asyncio.run(measure(number, key, peer, options.share)))
            options.json.write_text(json.dumps(results, indent=1))
    print(table(results))
    sys.exit(any("error" in row for row in results["rounds"]))


if __name__ == "__main__":
    main()
