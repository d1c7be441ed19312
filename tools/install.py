"""Brings the virtual environment up to date: `python3 tools/install.py VENV STAMP REQUIREMENT`. Called by the Makefile.

The stamp is written last, so an interrupted run is simply done again. A lock lets two `make` in two terminals wait for each other.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path


def main(venv: Path, stamp: Path, requirement: str) -> int:
    found = ".".join(map(str, sys.version_info[:3]))
    with Path(f"{venv}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_current(stamp):
            return 0  # another `make` did it while we waited
        stamp.unlink(missing_ok=True)
        if not is_usable(venv, found):
            print(f"creating {venv} with Python {found}", flush=True)
            if not create(venv):
                return 1
        print(f"installing {requirement} into {venv}: a minute or two", flush=True)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        if subprocess.call([*pip, "install", "-qq", "--no-input", "-c", "constraints.txt", "-e", requirement]):
            return fail("pip could not install the packages; its own words are above.", "Put that right, then run the same `make` again.")
        stamp.touch()
    return 0


def is_current(stamp: Path) -> bool:
    needed_by = [Path("pyproject.toml"), Path("constraints.txt")]
    return stamp.exists() and is_usable(stamp.parent) and all(stamp.stat().st_mtime >= path.stat().st_mtime for path in needed_by)


def is_usable(venv: Path, version: str | None = None) -> bool:
    """Whether `venv` has a Python that runs (of this version) and a pip that does."""
    python = venv / "bin" / "python"
    ask = "import pip, platform; print(platform.python_version())"
    try:
        answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return answer.returncode == 0 and version in (None, answer.stdout.strip())


def create(venv: Path) -> bool:
    # Debian ships Python without ensurepip, in which case `-m venv` leaves half an environment behind.
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        return True
    shutil.rmtree(venv, ignore_errors=True)
    print(made.stdout + made.stderr, file=sys.stderr, end="")
    fail(
        f"{sys.executable} can't create a virtual environment (its own words are above).",
        "On Debian and Ubuntu the needed part is a package of its own:  apt-get install python3-venv",
    )
    return False


def fail(what: str, fix: str) -> int:
    print(f"{what}\n{fix}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
