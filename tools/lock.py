"""Writes constraints.txt anew, with the newest releases that pyproject.toml allows. Called by `make lock`.

Resolves in an empty environment and keeps names and versions only: no address of a registry gets into the file.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HEAD = """\
# The releases that Toril is developed and tested with, one for every package that any extra can bring in, on Python 3.11 to 3.13.
# Written by `make lock`. Users of the library are not bound by it: pyproject.toml tells what they need.
"""

# Packages that only some Python or system needs, so that the environment which writes the file may not have them.
ELSEWHERE = ["async-timeout"]  # redis asks for it before Python 3.11.3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(Path(folder) / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "-e", ".[all,dev]", *ELSEWHERE], check=True)
        frozen = subprocess.run([*pip, "freeze", "--exclude-editable"], check=True, capture_output=True, text=True).stdout
    pins = [line for line in frozen.splitlines() if "==" in line]
    Path("constraints.txt").write_text(HEAD + "\n".join(pins) + "\n")
    print(f"constraints.txt: {len(pins)} packages")


if __name__ == "__main__":
    main()
