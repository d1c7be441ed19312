"""What `toril graph --mermaid` writes, read by Mermaid's own parser."""

from __future__ import annotations

import html
import json
import subprocess
from collections.abc import Sequence
from typing import Any, cast

import pytest

from app.main import AppModule
from tests.interop.conftest import MODULES
from toril import DynamicModule, Job, QueueModule, Scope, module, process, processor, provide
from toril.di import Graph, token_name
from toril.modules.application_graph import FEATURE_CHECKS, graph_of
from toril.modules.explorer import find_processors
from toril.modules.graph_picture import listed, mermaid

NASTY = (
    *"\"'`[](){}<>|/\\&#;:%@!?*~^=+-.,$",
    "end",
    "subgraph",
    "graph",
    "click",
    'a"]:::x --> b',
    "%% no comment",
    "#quot;",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<script>alert(1)</script>",
    "two\nlines",
    "back`tick` **bold**",
    "grüße, 你好, 🐂",
    "@{ shape: circle }",
    "--> o--o x--x",
)
"""Names that mean something to Mermaid, to HTML or to Markdown."""


@pytest.fixture(scope="module")
def mermaid_is_there(node_is_there: None) -> None:
    if not (MODULES / "mermaid").is_dir():
        pytest.skip("needs the npm packages of tests/interop as package.json names them now: make interop")


def parsed(texts: Sequence[str]) -> list[dict[str, Any]]:
    """What Mermaid understood of each flowchart."""
    done = subprocess.run(["node", "mermaid.mjs"], cwd=MODULES.parent, input=json.dumps(texts), capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return cast("list[dict[str, Any]]", json.loads(done.stdout))


def shown(label: str) -> str:
    """A label as it is shown; the parser keeps entities in a spelling of its own until it draws."""
    return html.unescape(label.replace("ﬂ°°", "&#").replace("ﬂ°", "&").replace("¶ß", ";"))


def expect_the_same(graph: Graph, seen: dict[str, Any]) -> None:
    """All modules with what they hold, imports, and queues with their processors; no more."""
    assert "error" not in seen, seen["error"]
    number_of = {node: number for number, node in enumerate(graph.nodes)}
    assert list(seen["subgraphs"]) == [f"m{number}" for number in number_of.values()]
    for node, number in number_of.items():
        inside = [f"m{number}p{position}" for position in range(max(1, len(listed(graph, node))))]
        assert sorted(seen["subgraphs"][f"m{number}"][1]) == sorted(inside)
    imports = [[f"m{number}", f"m{number_of[each]}", "normal"] for node, number in number_of.items() for each in node.imports]
    assert [edge for edge in seen["edges"] if edge[2] == "normal"] == imports
    served = [len(processors) for processors in find_processors(graph).values()]
    assert len([edge for edge in seen["edges"] if edge[2] == "thick"]) == sum(served)
    shapes = {Scope.SINGLETON: "square", Scope.JOB: "stadium", Scope.TRANSIENT: "lean_right"}
    for node, number in number_of.items():
        for position, binding in enumerate(listed(graph, node)):
            assert seen["vertices"][f"m{number}p{position}"][0] == shapes[binding.scope]
            assert shown(seen["vertices"][f"m{number}p{position}"][1]).startswith(" ".join(token_name(binding.token).splitlines()))
    assert [shape for shape, _ in seen["vertices"].values()].count("cylinder") == len(served)


def named(name: str) -> DynamicModule:
    """An application in which everything has that name."""

    @processor("emails")
    class Emails:
        @process(name)
        async def run(self, job: Job) -> None: ...

    @module()
    class Named: ...

    providers = [Emails, provide(name, use_value=1), provide(f"{name} job", use_factory=list, inject=[], scope=Scope.JOB)]
    inner = DynamicModule(Named, name=name, providers=providers, imports=[QueueModule.register_queue("emails")])
    return DynamicModule(Named, name=f"{name} {name}", imports=[inner])


@pytest.mark.blocks_the_loop
def test_mermaid_understands_the_graph_of_the_example_application(mermaid_is_there: None) -> None:
    graph = graph_of(AppModule)
    (seen,) = parsed([mermaid(graph)])
    expect_the_same(graph, seen)
    text = " ".join(label for _, label in seen["vertices"].values())
    assert "EmailProcessor" in text
    assert "processes emails" in text


@pytest.mark.blocks_the_loop
def test_mermaid_understands_every_name(mermaid_is_there: None) -> None:
    graphs = [graph_of(named(name), checks=FEATURE_CHECKS) for name in NASTY]
    for name, graph, seen in zip(NASTY, graphs, parsed([mermaid(graph) for graph in graphs]), strict=True):
        try:
            expect_the_same(graph, seen)
        except AssertionError as error:
            raise AssertionError(f"with the name {name!r}") from error


@pytest.mark.blocks_the_loop
def test_the_parser_would_tell_what_is_wrong(mermaid_is_there: None) -> None:
    wrong, right = parsed(['flowchart LR\n  a["x"]]', 'flowchart LR\n  a["x"]'])
    assert "Parse error on line 2" in wrong["error"]
    assert right["vertices"] == {"a": ["square", "x"]}
