"""The module graph as text and as a Mermaid flowchart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toril import Job, JobRef, ManyToken, QueueModule, Scope, Token, global_module, injectable, module, process, processor, provide
from toril.modules.application_graph import FEATURE_CHECKS, graph_of
from toril.modules.graph_picture import document, mermaid, tree

SECRET = Token[str]("SECRET")
CHECKS = ManyToken[Any]("CHECKS")


class Sender: ...


class Smtp(Sender): ...


@injectable(scope=Scope.TRANSIENT)
class Draft: ...


class Audit:
    def __init__(self, job: JobRef) -> None: ...


def make_client() -> str:
    raise AssertionError("nothing is made for a picture")


@processor("emails", concurrency=5)
class Mails:
    def __init__(self, audit: Audit) -> None: ...

    @process("welcome", concurrency=3)
    async def welcome(self, job: Job) -> None: ...

    @process()
    async def rest(self, job: Job) -> None: ...


@global_module
@module(
    providers=[Smtp, provide(Sender, use_existing=Smtp), provide(SECRET, use_value="hunter2"), provide("client", use_factory=make_client)],
    exports=[Sender, SECRET],
)
class SendModule: ...


@module(imports=[SendModule, QueueModule.register_queue("emails")], providers=[Mails, Audit, Draft, provide(CHECKS, use_class=Draft)])
class MailModule: ...


@module(imports=[MailModule, SendModule])
class AppModule: ...


def test_the_tree_shows_modules_providers_scopes_exports_and_processors() -> None:
    text = tree(graph_of(AppModule, checks=FEATURE_CHECKS))
    assert text.startswith(
        """\
AppModule
├─ MailModule
│  ├─ Mails: job, processes emails, welcome (3 at a time), every other name
│  ├─ Audit: job
│  ├─ Draft: transient
│  ├─ CHECKS = Draft: transient
│  ├─ SendModule (global)
│  │  ├─ Smtp: singleton
│  │  ├─ SECRET = a value: singleton, exported
│  │  ├─ 'client' = make_client(): singleton
│  │  └─ Sender → Smtp: exported
│  └─ QueueModule(emails)
"""
    )
    assert text.endswith("\n└─ SendModule (see above)")
    assert "hunter2" not in text


def test_the_flowchart_has_the_same_and_what_each_queue_leads_to() -> None:
    text = mermaid(graph_of(AppModule, checks=FEATURE_CHECKS))
    lines = text.splitlines()
    assert lines[0] == "flowchart LR"
    for line in (
        '  subgraph m1["MailModule"]',
        '    m1p0(["Mails<br/>processes emails<br/>welcome (3 at a time)<br/>every other name"])',
        '    m1p2[/"Draft"/]',
        '  subgraph m2["SendModule (global)"]',
        '    m2p3["Sender ↗"]',
        "  m0 --> m1",
        "  m1 --> m2",
        '  q0[("emails")]',
        "  q0 ==> m1p0",
    ):
        assert line in lines
    assert "hunter2" not in text
    assert lines.count("  end") == sum(line.startswith("  subgraph") for line in lines)


def test_the_document_has_the_same_by_the_ids_of_the_flowchart() -> None:
    data = document(graph_of(AppModule, checks=FEATURE_CHECKS))
    assert (data["root"], data["warnings"]) == ("m0", [])
    by_name = {each["name"]: each for each in data["modules"]}
    assert by_name["AppModule"]["imports"] == [by_name["MailModule"]["id"], by_name["SendModule"]["id"]]
    assert (by_name["MailModule"]["id"], by_name["SendModule"]["is_global"]) == ("m1", True)
    by_token = {each["token"]: each for module in data["modules"] for each in module["providers"]}
    assert by_token["Mails"] == {
        "token": "Mails", "scope": "job", "is_exported": False, "alias_of": None, "queue": "emails",
        "handlers": [{"name": "welcome", "concurrency": 3}, {"name": None, "concurrency": None}],
    }  # fmt: skip
    assert (by_token["Sender"]["scope"], by_token["Sender"]["alias_of"], by_token["Sender"]["is_exported"]) == (None, "Smtp", True)
    assert "hunter2" not in json.dumps(data)


def test_labels_can_not_end_a_label() -> None:
    @module(providers=[provide('a"]<b>&', use_value=1)])
    class Odd: ...

    assert '["a#quot;]#lt;b#gt;#amp;' in mermaid(graph_of(Odd)).replace("'", "")


def test_a_chain_of_a_thousand_modules_is_drawn() -> None:
    last: type = module()(type("Module0", (), {}))
    for number in range(1, 1_000):
        last = module(imports=[last])(type(f"Module{number}", (), {}))
    assert tree(graph_of(last)).count("\n") == 999


APPLICATION = """
from toril import QueueModule, module

class Service: ...

class Needs:
    def __init__(self, service: Service) -> None: ...

@module(providers=[Service])
class AppModule: ...

@module(providers=[Needs])
class BrokenModule: ...
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "application.py").write_text(APPLICATION, encoding="utf-8")
    toril = Path(sys.executable).with_name("toril")
    return subprocess.run([toril, "graph", *arguments], cwd=folder, capture_output=True, text=True, timeout=50)


@pytest.mark.blocks_the_loop
def test_the_command_prints_the_tree_and_writes_the_flowchart(tmp_path: Path) -> None:
    ended = run(tmp_path, "application:AppModule", "--mermaid", "graph.mmd")
    assert (ended.returncode, ended.stdout) == (0, "AppModule\n└─ Service: singleton\n")
    assert (tmp_path / "graph.mmd").read_text(encoding="utf-8").startswith("flowchart LR\n")
    assert run(tmp_path, "application:AppModule", "--mermaid", "-").stdout.startswith("flowchart LR\n")


@pytest.mark.blocks_the_loop
def test_the_command_tells_everything_that_is_wrong(tmp_path: Path) -> None:
    ended = run(tmp_path, "application:BrokenModule")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "[UnresolvedDependency] can't resolve dependencies of Needs" in ended.stderr
    ended = run(tmp_path, "application:AppModule", "--mermaid", "missing/graph.mmd")
    assert ended.returncode == 2
    assert "can't write missing/graph.mmd: No such file or directory" in ended.stderr
