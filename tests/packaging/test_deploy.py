"""The files under config/deploy/, looked at by the checkers of those who read them: systemd, hadolint, the schemas of Kubernetes.

No image is built and no cluster asked: a test has neither.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from toril.cli.main import app
from toril.cli.probes import read_address
from toril.durations import to_ms
from toril.worker.options import WorkerOptions

pytestmark = pytest.mark.blocks_the_loop

PROJECT: Final = Path(__file__).parents[2]
DEPLOY: Final = PROJECT / "config" / "deploy"
BIN: Final = Path(sys.executable).parent
SERVICE: Final = DEPLOY / "toril-worker.service"
DOCKERFILE: Final = DEPLOY / "Dockerfile"
KUBERNETES: Final = DEPLOY / "kubernetes.yaml"

STOP_BOUND_MS: Final = 4_000
"""What a stop may take beyond the shutdown timeout (docs/guide.md, "Stopping"); tests/server/test_stop_under_load.py holds it."""

KILLED_AFTER_MS: Final = 20_000
"""When a supervisor kills what has not ended, beyond both (docs/guide.md, "Several processes")."""


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    told = done.stdout + done.stderr
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{told}"
    return told


def manifests() -> dict[str, Any]:
    yaml: Any = importlib.import_module("yaml")  # comes with kubernetes-validate; it has no types of its own
    return {one["kind"]: one for one in yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8"))}


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = manifests()["Deployment"]["spec"]["template"]["spec"]
    return spec


def unit() -> Mapping[str, str]:
    lines = [line.partition("=") for line in SERVICE.read_text(encoding="utf-8").splitlines() if "=" in line and not line.startswith("#")]
    return {name: value for name, _, value in lines}


def arguments(words: list[str]) -> Mapping[str, Any]:
    """How the command itself reads what follows `toril worker`; it refuses options that it doesn't have."""
    group: Any = typer.main.get_command(app)
    context: Any = group.commands["worker"].make_context("worker", words)
    read: Mapping[str, Any] = context.params
    return read


def dockerfile_words(instruction: str) -> list[str]:
    [found] = re.findall(rf"^{instruction} (\[.*\])$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    return [str(word) for word in json.loads(found)]


def commands() -> Iterator[tuple[str, list[str]]]:
    yield "systemd", shlex.split(unit()["ExecStart"])[2:]
    yield "docker", (dockerfile_words("ENTRYPOINT") + dockerfile_words("CMD"))[2:]
    [container] = pod()["containers"]
    yield "kubernetes", dockerfile_words("ENTRYPOINT")[2:] + container["args"]


@pytest.mark.parametrize(("where", "words"), [pytest.param(where, words, id=where) for where, words in commands()])
def test_the_worker_understands_its_command_line(where: str, words: list[str]) -> None:
    read = arguments(words)
    assert read["module"] == "mails.module:AppModule"
    assert to_ms(read["shutdown_timeout"], where) == WorkerOptions().shutdown_timeout_ms
    assert read_address(read["probe_address"])[1] == 8080


def test_kubernetes_waits_for_longer_than_a_stop_takes() -> None:
    [container] = pod()["containers"]
    read = arguments(["m:M", *container["args"]])
    assert pod()["terminationGracePeriodSeconds"] * 1_000 > to_ms(read["shutdown_timeout"], "") + STOP_BOUND_MS
    assert read["processes"] == 1


def test_systemd_waits_for_longer_than_a_supervisor_does() -> None:
    read = arguments(shlex.split(unit()["ExecStart"])[2:])
    stop_ms = to_ms(read["shutdown_timeout"], "") + STOP_BOUND_MS + KILLED_AFTER_MS
    assert int(unit()["TimeoutStopSec"]) * 1_000 > stop_ms


def test_probes_ask_where_the_worker_answers() -> None:
    [container] = pod()["containers"]
    read = arguments(["m:M", *container["args"]])
    [port] = container["ports"]
    assert read["probe_address"] == f"0.0.0.0:{port['containerPort']}"
    asked = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe["port"] for probe in asked.values()} == {port["name"]}
    assert [probe["path"] for probe in asked.values()] == ["/readyz", "/livez", "/readyz"]
    assert f"EXPOSE {port['containerPort']}\n" in DOCKERFILE.read_text(encoding="utf-8")


def test_what_selects_pods_finds_them() -> None:
    labels = manifests()["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifests()["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests()["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels


def test_workers_run_as_on_a_server() -> None:
    """A container has no terminal, but without the variable its log would be a developer's."""
    assert unit()["Environment"] == "TORIL_ENV=production"
    assert re.search(r"^ENV .*\bTORIL_ENV=production$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_password_of_the_server_stands_in_no_file() -> None:
    [container] = pod()["containers"]
    [url] = [one for one in container["env"] if one["name"] == "REDIS_URL"]
    assert set(url) == {"name", "valueFrom"}
    assert "REDIS_URL" not in unit()
    assert "REDIS_URL=" not in DOCKERFILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_the_manifests_fit_the_schemas_of_kubernetes(version: str) -> None:
    told = run(BIN / "kubernetes-validate", "--strict", "-k", version, KUBERNETES)
    assert told.count("passed for resource") == len(manifests())


@pytest.mark.skipif(not (BIN / "hadolint").exists(), reason="hadolint has no build for this machine")
def test_hadolint_finds_nothing_in_the_container_file() -> None:
    assert run(BIN / "hadolint", "--no-color", DOCKERFILE) == ""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / "mails-worker.service"
    here = SERVICE.read_text(encoding="utf-8").replace("/srv/mails/.venv/bin/toril", str(BIN / "toril"))  # it must be there
    copy.write_text(here.replace("=/srv/mails", f"={tmp_path}"))
    assert run("systemd-analyze", "verify", "--man=no", copy) == ""
    exposure = re.search(r"exposure level for .*: ([\d.]+)", run("systemd-analyze", "security", "--offline=true", copy))
    assert exposure is not None
    assert float(exposure[1]) < 2.5
