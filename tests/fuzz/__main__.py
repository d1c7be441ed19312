"""`make fuzz`: throws bytes at whatever reads what others have written, and ends at the first error that a reader must not raise.

    python -m tests.fuzz --seconds 60                all targets, one after the other, so long each
    python -m tests.fuzz --target events INPUT       one target with one input: how a crash is repeated

Each target runs in a process of its own, since the fuzzer ends its process. It needs atheris, which isn't among the dependencies of
development: it is built for few versions of Python.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, cast

_EXECUTIONS: Final = re.compile(r"^#(\d+)\s+DONE|Done (\d+) runs", re.MULTILINE)


def main() -> int:
    """Run all targets, or the one that is named."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="how long each target runs")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument("--target")
    parser.add_argument("input", nargs="?", type=Path)
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("skipped: atheris is not installed (pip install atheris, where there is one for your Python)")
        return 0
    if given.target is not None:
        return _run_one(given.target, given.input, given.seconds, given.seed)
    from tests.fuzz.targets import TARGETS

    failed = [name for name in TARGETS if not _in_a_process(name, given.seconds, given.seed)]
    print(f"{len(TARGETS) - len(failed)} of {len(TARGETS)} targets held" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _in_a_process(name: str, seconds: int, seed: int) -> bool:
    command = [sys.executable, "-m", "tests.fuzz", "--target", name, "--seconds", str(seconds), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    found = _EXECUTIONS.findall(output)
    count = next((int(number) for number in found[-1] if number), 0) if found else 0
    print(f"{name:16} {count:>12,} executions{'' if done.returncode == 0 else '  FAILED'}", flush=True)
    if done.returncode != 0:
        print(output[-4_000:], flush=True)
    return done.returncode == 0


def _run_one(name: str, one_input: Path | None, seconds: int, seed: int) -> int:
    atheris = cast("Any", importlib.import_module("atheris"))
    with atheris.instrument_imports(include=["toril"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    if one_input is not None:
        target(one_input.read_bytes())
        return 0
    crashes = tempfile.mkdtemp(prefix="toril-fuzz-")
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={crashes}/", "-max_len=4096", f"-seed={seed}"]
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
