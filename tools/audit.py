"""Looks for known vulnerabilities in what `constraints.txt` and tests/interop install.

Ends with 1 if there is one, and with 3 if something could not be looked up (no network, a mirror that knows no advisories): silence
would look like safety. 0: all was looked up, and nothing is known. (`make` itself ends with 2 for either, and tells which it was.)
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import venv
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, cast

ROOT: Final = Path(__file__).parents[1]
LIMIT_S: Final = 300


class Result(IntEnum):
    """How it ends, the worst last; the numbers are exit codes."""

    SAFE = 0
    UNKNOWN = 3
    VULNERABLE = 1


def main() -> int:
    """Ask for both, and tell."""
    results = (_python(), _node())
    if Result.UNKNOWN in results:
        print("not looked up is not safe: run this where the advisories of PyPI and npm can be reached")
    return max(results, key=list(Result).index)


def _python() -> Result:
    """Whether a Python package has a known vulnerability; the tool runs in an environment of its own."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        tools = Path(folder, "bin")
        if _run(str(tools / "pip"), "install", "--quiet", "pip-audit").returncode != 0:
            return _skipped("Python packages", "pip-audit can't be installed")
        arguments = ("--requirement", "constraints.txt", "--no-deps", "--vulnerability-service", "pypi", "--format", "json")
        done = _run(str(tools / "pip-audit"), *arguments, "--progress-spinner", "off")
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return _skipped("Python packages", (done.stderr.strip() or "no answer").splitlines()[-1])
    known = [one for one in packages if "skip_reason" not in one]
    unknown = [str(one["name"]) for one in packages if "skip_reason" in one]
    bad = [f"{one['name']} {one['version']}: {', '.join(each['id'] for each in one['vulns'])}" for one in known if one["vulns"]]
    told = _told("Python packages", len(known), bad)
    if unknown:  # pip-audit itself ends with 0 even if it could look up nothing at all
        skipped = _skipped(
            f"{len(unknown)} of {len(packages)} Python packages", f"the index has no advisories for {', '.join(unknown[:3])} …"
        )
        return told or skipped
    return told


def _node() -> Result:
    """Whether an npm package has a known vulnerability."""
    if shutil.which("npm") is None:
        return _skipped("npm packages", "npm is not installed")
    done = _run("npm", "audit", "--json", "--package-lock-only", folder=ROOT / "tests/interop")
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
        found = cast("dict[str, dict[str, Any]]", answer["vulnerabilities"])
    except (ValueError, KeyError):
        return _skipped("npm packages", "the registry answers no audit requests")
    count = int(answer.get("metadata", {}).get("dependencies", {}).get("total", 0))
    return _told("npm packages", count, [f"{name}: {one['severity']}" for name, one in found.items()])


def _told(what: str, count: int, bad: list[str]) -> Result:
    if count:
        print(f"{what}: {count} looked up, {len(bad)} with known vulnerabilities", *bad, sep="\n  ")
    return Result.VULNERABLE if bad else Result.SAFE


def _skipped(what: str, reason: str) -> Result:
    print(f"skipped: {what} could not be looked up ({reason})")
    return Result.UNKNOWN


def _run(*command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {LIMIT_S} s")


if __name__ == "__main__":
    sys.exit(main())
