"""Who is compared, and the environment that each needs; the versions stand in `peers.toml`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = ROOT / ".bench"
"""The environments, and the figures of the last run; not under version control."""
PROGRAMS: Final = "tests.benchmarks.programs"
VERSIONS: Final = Path(__file__).with_name("peers.toml")
DRAWING: Final = "drawing"
INTEROP: Final = ROOT / "tests" / "interop"
OURS: Final = ("-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[embedded,speed]", "aiosmtpd", "aiosmtplib", "jinja2")
"""As a user has it, with what the example application needs. Where a web framework is installed, say, others of these import it, too."""


@dataclass(frozen=True)
class Peer:
    """One of those that are compared.

    Args:
        key: its name in arguments and figures.
        title: its name in tables.
        command: what starts its program.
        settings: given to the program.
        is_python: it is another task queue for Python.
        may_double: how many jobs of a run it may run twice without any fault, as we have seen.
        requirements: what its environment holds; none: it isn't Python.
    """

    key: str
    title: str
    command: Sequence[str]
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    is_python: bool = False
    requirements: Sequence[str] = ()
    may_double: int = 0

    @property
    def python(self) -> Path:
        """That of its environment."""
        return CACHE / self.key / "bin" / "python"

    @property
    def is_ours(self) -> bool:
        return self.requirements == OURS

    def why_missing(self) -> str | None:
        """What it needs and can't be installed by us; None if nothing."""
        if self.key != "node" or ((INTEROP / "node_modules" / "bullmq").is_dir() and shutil.which("node")):
            return None
        return "needs Node 20, npm and the packages of tests/interop: make interop"

    def install(self) -> None:
        """Make its environment, or leave it as it is if it holds what is asked for. Raises CalledProcessError with pip's words above."""
        if not self.requirements:
            return
        folder = CACHE / self.key
        stamp = folder / "requirements.json"
        wanted = json.dumps([sys.version, *self.requirements, *([(ROOT / "pyproject.toml").read_text()] if self.is_ours else [])])
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print(f"installing {' '.join(self.requirements)} into {folder.relative_to(ROOT)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-input"]
        subprocess.run([*pip, *self.requirements], check=True)
        stamp.write_text(wanted)

    def version(self) -> str:
        """Of the library itself."""
        if self.key == "node":
            dependencies: dict[str, str] = json.loads((INTEROP / "package.json").read_text())["dependencies"]
            return dependencies["bullmq"]
        return metadata.version("toril") if self.is_ours else self.requirements[0].partition("==")[2]


def _ours(key: str, title: str, **settings: object) -> Peer:
    return Peer(key, title, [str(CACHE / key / "bin" / "python"), "-m", f"{PROGRAMS}.toril_program"], settings, requirements=OURS)


def _other(key: str, title: str, program: str, requirements: list[str], uvloop: bool = False, may_double: int = 0) -> Peer:
    command = [str(CACHE / key / "bin" / "python"), "-m", f"{PROGRAMS}.others.{program}"]
    return Peer(key, title, command, {"uvloop": uvloop}, is_python=True, requirements=requirements, may_double=may_double)


def _versions() -> dict[str, Any]:
    return tomllib.loads(VERSIONS.read_text())


def drawing() -> Peer:
    """What draws the plots: no peer, but it has an environment like theirs."""
    return _other(DRAWING, **_versions()[DRAWING])


def toril_here() -> Peer:
    """Toril in the environment of this process, which needs no installing: for tests."""
    toril = all_peers()["toril"]
    return replace(toril, command=[sys.executable, *toril.command[1:]])


def all_peers() -> dict[str, Peer]:
    """Everybody, by key; Toril first."""
    ours = [
        _ours("toril", "Toril"),
        _ours("toril-uvloop", "Toril with uvloop", uvloop=True),
        Peer("node", "BullMQ on Node", ["node", f"{PROGRAMS.replace('.', '/')}/node_program.mjs"]),
    ]
    others = [_other(key, **values) for key, values in _versions().items() if key != DRAWING]
    return {peer.key: peer for peer in [*ours, *others]}
