"""Looks for known vulnerabilities in what `constraints.txt` and tests/interop install. Ends with 1 if there is one.

What can't be looked up (no network, a mirror that knows no advisories) is named as skipped: silence would look like safety.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, Final, cast

ROOT: Final = Path(__file__).parents[1]
LIMIT_S: Final = 300


def main() -> int:
    """Ask for both, and tell."""
    return 1 if any([_python(), _node()]) else 0


def _python() -> bool:
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
    if unknown:  # pip-audit itself ends with 0 even if it could look up nothing at all
        _skipped(f"{len(unknown)} of {len(packages)} Python packages", f"the index has no advisories for {', '.join(unknown[:3])} …")
    bad = [f"{one['name']} {one['version']}: {', '.join(each['id'] for each in one['vulns'])}" for one in known if one["vulns"]]
    return _told("Python packages", len(known), bad)


def _node() -> bool:
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


def _told(what: str, count: int, bad: list[str]) -> bool:
    if count:
        print(f"{what}: {count} looked up, {len(bad)} with known vulnerabilities", *bad, sep="\n  ")
    return bool(bad)


def _skipped(what: str, reason: str) -> bool:
    print(f"skipped: {what} could not be looked up ({reason})")
    return False


def _run(*command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {LIMIT_S} s")


if __name__ == "__main__":
    sys.exit(main())
