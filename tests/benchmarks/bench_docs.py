"""Writes the figures of the last `make bench-peers` into docs/benchmarks.md, between its two marks, and draws its plots.

What stands outside of the marks is written by hand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.bench_peers import RESULTS
from tests.benchmarks.long_measures import MANY_SLOTS
from tests.benchmarks.peers import ROOT, Peer, all_peers, drawing
from tests.benchmarks.report import ratio, values
from tests.benchmarks.targets import TARGETS, is_better_if_more

PAGE: Final = ROOT / "docs" / "benchmarks.md"
PLOTS: Final = ROOT / "docs" / "benchmarks"
BEGIN: Final = "<!-- figures: written by `make bench-docs` -->"
END: Final = "<!-- end of the figures -->"

HEADLINES: Final = {
    ("drain", "drained_per_s"): "drained, jobs/s",
    ("drain", "added_per_s"): "added in bulk, jobs/s",
    ("adds", "one_by_one_us"): "one add, µs",
    ("adds", "at_once_per_s"): "1,000 adds at once, adds/s",
    ("sleep", "of_ideal"): "50 ms jobs, share of the ideal",
    ("latency", "p50_ms"): "add to start, median, ms",
    ("latency", "p99_ms"): "add to start, 99 %, ms",
    ("drain", "worker_cpu_us"): "worker CPU a job, µs",
    ("drain", "waiting_job_bytes"): "a waiting job, bytes",
}
"""What everybody is compared by."""

BESIDE_NODE: Final = {
    ("drain", "server_cpu_us"): "server CPU a job, µs",
    ("drain", "server_cpu_add_us"): "server CPU an added job, µs",
    ("due", "last_ms"): "5,000 due at one instant: last start, ms late",
    ("flow", "flow_ms"): "flow of 1,000 children, ms",
    ("kinds", "prioritized_us"): "a prioritized job, µs",
    ("kinds", "of_many_prioritized_us"): "the same, of 200,000, µs",
    ("kinds", "beside_delayed_us"): "a job beside 200,000 delayed ones, µs",
    ("memory", "rss_mb"): "a worker after 200,000 jobs, MB",
}
"""What Toril and Node are compared by besides."""


def shown(value: float | None) -> str:
    """With three digits that count."""
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def rows(header: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """A table of Markdown."""
    return ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *body)]


def median(results: Mapping[str, Any], workload: str, figure: str, peer: str) -> float | None:
    """Over the rounds; None if it was not measured."""
    found = values(results, workload).get((peer, figure))
    return statistics.median(found.values()) if found else None


def promised(results: Mapping[str, Any]) -> list[str]:
    """The table of the targets."""
    body: list[list[str]] = []
    for target in TARGETS:
        found = target.found(results)
        verdict = "not measured" if found is None else "yes" if target.is_met(found) else "**no**"
        body.append([target.what, f"{'≥' if target.at_least else '≤'} {target.bound:g}", shown(found), verdict])
    return rows(["what", "target", "measured", "met"], body)


def everybody(results: Mapping[str, Any], peers: Sequence[Peer]) -> list[str]:
    """The table of all peers."""
    body = [
        [f"{peer.title} {results['versions'][peer.key]}"] + [shown(median(results, *headline, peer.key)) for headline in HEADLINES]
        for peer in peers
    ]
    return rows(["", *HEADLINES.values()], body)


def beside_node(results: Mapping[str, Any]) -> list[str]:
    """The table of what Toril and Node do."""
    body: list[list[str]] = []
    for (workload, figure), label in (HEADLINES | BESIDE_NODE).items():
        medians = [shown(median(results, workload, figure, key)) for key in ("toril", "toril-uvloop", "node")]
        body.append([label, *medians, shown(ratio(values(results, workload), figure, "toril", "node"))])
    return rows(["", "Toril", "with uvloop", "Node", "Toril / Node"], body)


def wins(results: Mapping[str, Any], peers: Sequence[Peer]) -> list[str]:
    """Where a peer is better than Toril without uvloop."""
    lines: list[str] = []
    for (workload, figure), label in (HEADLINES | BESIDE_NODE).items():
        for peer in peers:
            ours = None if peer.key.startswith("toril") else ratio(values(results, workload), figure, "toril", peer.key)
            if ours is not None and (ours < 1 if is_better_if_more(figure) else ours > 1):
                theirs = shown(median(results, workload, figure, peer.key))
                lines.append(f"- **{peer.title}**, {label}: {theirs}; Toril's is {shown(ours)} times that.")
    return lines or ["Nowhere in these figures."]


def plots(results: Mapping[str, Any], peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """The plots, as programs/others/plots.py reads them."""
    rates: dict[str, list[tuple[int, float]]] = {}
    costs: dict[str, list[tuple[int, float]]] = {}
    for peer in peers:
        for slots in MANY_SLOTS:
            if (rate := median(results, "slots", f"slots_{slots}_per_s", peer.key)) is not None:
                rates.setdefault(peer.title, []).append((slots, rate))
        for key, figure in values(results, "backlog"):
            size = figure.removeprefix("of_").removesuffix("_us")
            if key == peer.key and size.isdecimal() and (cost := median(results, "backlog", figure, key)) is not None:
                costs.setdefault(peer.title, []).append((int(size), cost))
    return [
        {"file": "slots.svg", "title": "No-op jobs, one process", "x": "slots", "y": "jobs/s", "series": rates},
        {"file": "backlog.svg", "title": "20,000 no-op jobs out of a backlog", "x": "jobs waiting", "y": "µs a job", "series": costs},
    ]


def figures(results: Mapping[str, Any]) -> str:
    """The part of the page that is written anew."""
    peers = [peer for peer in all_peers().values() if peer.key in results["versions"]]
    loads = [row["load"] for row in results["rounds"]]
    rounds = {row["workload"]: row["round"] for row in results["rounds"]}
    machine = results["machine"]
    failed = [f"- {row['workload']}, {row['peer']}, round {row['round']}: {row['error']}" for row in results["rounds"] if "error" in row]
    drawn = plots(results, peers)
    pictures = [f"![{plot['title']}: {plot['y']} over {plot['x']}](benchmarks/{plot['file']})" for plot in drawn if plot["series"]]
    measured = (
        f"Measured on {results['date']} on {machine['cores']} cores ({machine['processor']}), {machine['system']}, Python"
        f" {machine['python']}; rounds: {', '.join(f'{key} {count}' for key, count in rounds.items())}. The load of the machine was between"
        f" {min(loads):.1f} and {max(loads):.1f}, in the median {statistics.median(loads):.1f}, other work on it included."
    )
    parts = [
        measured,
        "### What is promised",
        *promised(results),
        "### Everybody",
        *everybody(results, peers),
        "### Toril and BullMQ on Node",
        *beside_node(results),
        "### Where a peer wins",
        *wins(results, peers),
        *(["### Over slots and backlogs", *pictures] if pictures else []),
        *(["### What could not be measured", *failed] if failed else []),
    ]
    text = ""
    for before, part in zip(["", *parts], parts, strict=False):
        joins = part[0] in "|-" and before[:1] == part[0]
        text += ("\n" if joins else "\n\n") + part
    return text.strip()


def main() -> None:
    """Read the arguments, and write page and plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS, help="the figures, as bench_peers wrote them")
    results = json.loads(parser.parse_args().json.read_text())
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{figures(results)}\n\n{END}{after}")
    artist = drawing()
    artist.install()
    PLOTS.mkdir(exist_ok=True)
    peers = [peer for peer in all_peers().values() if peer.key in results["versions"]]
    wanted = [plot | {"file": str(PLOTS / plot["file"])} for plot in plots(results, peers) if plot["series"]]
    subprocess.run(artist.command, input=json.dumps(wanted), text=True, check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
