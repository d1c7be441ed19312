"""Writes docs/reference.md anew, from the public names and their docstrings. Called by `make reference`.

A test compares the page with what this makes, so a name can't be missing there, and no signature can be out of date.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import toril
import toril.testing
from toril import errors
from toril.di import errors as di_errors
from toril.modules import errors as module_errors
from toril.queues import dead_letters, events, getters, job, job_schedulers

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference.md"

HEAD: Final = """\
# Reference

Every public name, with its signature, its defaults and what it raises. Written by `make reference` from the docstrings, where more stands;
[guide.md](guide.md) shows how things are used. A duration (`Duration`) is text such as `"5s"` or a `timedelta`. Where a signature ends in
`**fields: Unpack[JobOptionFields]`, it takes the fields of [`JobOptions`](#joboptions) as keywords: `attempts=5, delay="1m"`.

"""

SECTIONS: Final = (
    ("Queues and jobs", ("toril.queues.", "toril.durations")),
    ("Workers and applications", ("toril.worker.", "toril.application", "toril.clock", "toril.modules.roles")),
    ("Processors and listeners", ("toril.modules.decorators", "toril.modules.fleet_decorators")),
    ("Around handlers", ("toril.modules.interceptors",)),
    ("Schedules", ("toril.modules.schedule",)),
    ("Modules and injection", ("toril.di.", "toril.modules.queue_module", "toril.modules.tokens")),
    ("Settings", ("toril.modules.config_module", "toril.modules.settings")),
    ("Logs and metrics", ("toril.telemetry.",)),
    ("Errors that handlers raise", ("toril.errors",)),
)

VALUES: Final = {
    "INQUIRER": (
        "Modules and injection",
        "Token of who asks: `Annotated[type, Inject(INQUIRER)]` in something transient is the class it is made for.",
    ),
    "JOB_REF": ("Modules and injection", "Token of the job that runs: the same as `JobRef`, for `inject=[JOB_REF]` in `provide`."),
    "JobRef": ("Modules and injection", "Annotation for the job that runs: `job: JobRef`. Whoever asks for it lives as long as the job."),
    "Duration": ("Queues and jobs", '`timedelta | str`: `"250ms"`, `"5s"`, `"1h30m"`. A bare number raises InvalidDurationError.'),
    "APP_INTERCEPTOR": (
        "Around handlers",
        "Token of interceptors around every handler of the application: `provide(APP_INTERCEPTOR, use_class=Timing)` in any module.",
    ),
    "APP_FILTER": (
        "Around handlers",
        "Token of exception filters for every handler of the application: `provide(APP_FILTER, use_class=Report)` in any module.",
    ),
    "CallNext": (
        "Around handlers",
        "`Callable[[], Awaitable[Any]]`: goes on to the next interceptor, in the end to the handler, and returns its result.",
    ),
    "Role": ("Workers and applications", '`"producer"`, `"worker"` or `"scheduler"`: what a process does; see `WorkerFactory.create`.'),
}
"""Names of things that have no docstring of their own, with their section."""

OTHERS: Final[tuple[tuple[str, tuple[type, ...]], ...]] = (
    ("Dead letters: `toril.queues.dead_letters`", (dead_letters.DeadLetters, dead_letters.DeadLetter)),
    ("What queues return", (getters.Metrics, getters.WorkerClient, job.JobLogs, job_schedulers.JobSchedulers, job_schedulers.JobScheduler)),
)


NEVER_MADE: Final = frozenset(
    "Application ApplicationContext Job SyncJob JobNode QueueModule ScheduleModule ConfigModule SchedulerRegistry ModuleRef WorkerFactory "
    "SettingsSection TorilSettings Test TestingModule TestingModuleBuilder QueueSpy DeadLetters JobSchedulers".split()
)
"""Classes whose objects are handed out, injected or subclassed, so that nobody needs to know how they are made."""


@dataclass
class Doc:
    """A docstring in its parts."""

    text: str = ""
    args: dict[str, str] = field(default_factory=dict[str, str])
    raises: str = ""

    @property
    def line(self) -> str:
        """What it says first, in one line."""
        return " ".join(self.text.split("\n\n", 1)[0].split())


def read_doc(of: object) -> Doc:
    """The docstring of something."""
    doc, part, last = Doc(), "text", ""
    for line in (inspect.getdoc(of) or "").splitlines():
        if line.rstrip() in {"Args:", "Raises:", "Returns:", "Yields:"}:
            part = line.strip(" :").lower()
            continue
        elif part == "args" and (found := re.match(r"    (\*{0,2}\w+): (.*)", line)) is not None:
            last = found[1]
            doc.args[last] = found[2]
        elif part == "args" and last:
            doc.args[last] += f" {line.strip()}"
        elif part == "raises":
            is_new = line.startswith("    ") and not line.startswith("     ")
            doc.raises += f"{'; ' if is_new and doc.raises else ' '}{line.strip()}" if line.strip() else ""
        elif part == "text":
            doc.text += f"{line}\n"
        if line and not line.startswith(" ") and part != "text" and not line.rstrip().endswith(":"):
            part = "text"
    doc.raises = doc.raises.replace(".; ", "; ")
    return doc


def signature(of: object, name: str) -> str:
    """A call as one may write it, with types and defaults."""
    try:
        found = inspect.signature(of)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a class or function
    except (TypeError, ValueError):
        return name
    parts: list[str] = []
    for parameter in found.parameters.values():
        if parameter.name in {"self", "cls"}:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        hint = "" if parameter.annotation is parameter.empty else f": {hint_text(parameter.annotation)}"
        default = "" if parameter.default is parameter.empty else f" = {value_text(parameter.default)}"
        parts.append(f"{stars}{parameter.name}{hint}{default}")
    returns = "" if inspect.isclass(of) or found.return_annotation is found.empty else f" -> {hint_text(found.return_annotation)}"
    return f"{name}({', '.join(parts)}){returns}"


def hint_text(hint: object) -> str:
    """An annotation as it is written."""
    return hint if isinstance(hint, str) else inspect.formatannotation(hint)


def value_text(value: object) -> str:
    """A default; what can't be written is left open."""
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}()"
    text = repr(value)
    return "…" if " at 0x" in text or text.startswith("<") else text


def field_docs(cls: type) -> dict[str, str]:
    """The text below each annotated attribute of a class."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    [node] = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    found: dict[str, str] = {}
    for one, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
                text = " ".join(after.value.value.split())
            value = "" if one.value is None else ast.unparse(one.value)
            if "init=False" in value:
                continue  # worked out from the others
            written = ast.unparse(one.annotation) + ("" if not value or value.startswith("field(") else f" = {value}")
            found[one.target.id] = f"`{one.target.id}: {written}`" + (f": {text}" if text else "")
    return found


def own_bases(cls: type) -> list[type]:
    """The class and those of its bases that are ours, the most general first."""
    return [base for base in reversed(cls.__mro__) if base.__module__.startswith("toril.")]


def members(cls: type) -> Iterator[str]:
    """One line for each public attribute and method."""
    args = read_doc(cls).args
    is_plain = not dataclasses.is_dataclass(cast("Any", cls)) and not cls.__module__.startswith("toril.modules.settings")
    for base in own_bases(cls):
        for name, text in field_docs(base).items():
            is_said = text.endswith("`") and (name in args or is_plain)  # by the arguments; or only for mixins and type checkers
            if not name.startswith("_") and "ClassVar" not in text and not is_said:
                yield text
    for name, text in args.items() if not is_plain else ():
        yield f"`{name}`: {text}"
    seen: set[str] = set()
    for base in own_bases(cls):
        for name, value in vars(base).items():
            if name.startswith("_") or name in seen or isinstance(value, (str, int)):
                continue
            current: Any = inspect.getattr_static(cls, name)
            doc = read_doc(current)
            if isinstance(current, property) or hasattr(current, "attrname"):  # a cached one
                seen.add(name)
                getter: Any = getattr(current, "fget", None) or getattr(current, "func", None)
                hint = hint_text(inspect.signature(getter).return_annotation)
                yield f"`.{name}: {hint}`" + (f": {doc.line}" if doc.line else "")
            elif callable(function := getattr(current, "__func__", current)) and not inspect.isclass(function):
                seen.add(name)
                awaits = "await " if inspect.iscoroutinefunction(inspect.unwrap(function)) else ""
                awaits = (
                    "async with " if str(getattr(function, "__annotations__", {}).get("return")).startswith("AsyncGenerator") else awaits
                )
                raises = f" *Raises:* {doc.raises.strip()}" if doc.raises else ""
                yield f"`{awaits}.{signature(function, name)}`" + (f": {doc.line}{raises}" if doc.line or raises else "")


def entry(of: object, name: str, level: str = "###") -> Iterator[str]:
    """What the page says about one class or function."""
    doc = read_doc(of)
    yield f"{level} {name}\n"
    if inspect.isclass(of) and issubclass(of, enum.Enum):
        yield f"{doc.line} One of {', '.join(f'`{one.name}`' for one in of)}.\n"
        return
    is_made = name not in NEVER_MADE and not getattr(of, "_is_protocol", False)
    if is_made and not (inspect.isclass(of) and issubclass(of, events.Event)):
        yield f"```text\n{textwrap.fill(signature(of, name), 136, subsequent_indent='    ', break_long_words=False)}\n```\n"
    if doc.line:
        yield f"{doc.line}\n"
    lines = [f"`{arg}`: {text}" for arg, text in doc.args.items() if is_made and not dataclasses.is_dataclass(of)]
    if inspect.isclass(of) and not issubclass(of, BaseException):
        lines += members(of)
    if lines:
        yield "\n".join(f"- {line}" for line in lines) + "\n"
    if doc.raises:
        yield f"*Raises:* {doc.raises.strip()}\n"


def public(module: Any, kind: type = object) -> list[type]:  # noqa: ANN401 -- a module
    """The classes that a module defines, in the order in which they are written."""
    values = list(cast("dict[str, object]", vars(module)).values())
    found = [each for each in values if inspect.isclass(each) and each.__module__ == module.__name__]
    return [each for each in found if issubclass(each, kind) and not each.__name__.startswith("_")]


def in_order(tree: Any) -> list[type]:  # noqa: ANN401 -- a module
    """The errors of a module in the order in which its docstring draws them."""
    drawn = re.findall(r"\w+", inspect.getdoc(tree) or "")
    return sorted(public(tree, BaseException), key=lambda cls: drawn.index(cls.__name__))


def section_of(name: str, of: object) -> str:
    """Under which heading a name of `toril` stands."""
    if name in VALUES:
        return VALUES[name][0]
    where = str(getattr(of, "__module__", ""))
    return next(title for title, prefixes in SECTIONS if where.startswith(prefixes))


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, _ in SECTIONS:
        parts.append(f"## {title}\n")
        for name in toril.__all__:
            of: object = getattr(toril, name)
            if section_of(name, of) == title:
                parts += [f"### {name}\n", f"{VALUES[name][1]}\n"] if name in VALUES else entry(of, name)
    parts.append("## Tests: `toril.testing`\n")
    for name in toril.testing.__all__:
        parts += entry(getattr(toril.testing, name), name)
    for title, classes in OTHERS:
        parts.append(f"## {title}\n")
        for cls in classes:
            parts += entry(cls, cls.__name__)
    parts.append("## Events: `toril.queues.events`\n")
    for cls in public(events):
        parts += entry(cls, cls.__name__)
    parts.append("## Errors: `toril.errors`\n")
    parts += [f"- `{cls.__name__}({cls.__bases__[0].__name__})`: {read_doc(cls).line}" for cls in in_order(errors)]
    parts.append("\n## What is found in the modules before anything is made: `toril.di`, `toril.modules.errors`\n")
    parts += [f"- `{cls.__name__}`: {read_doc(cls).line}" for each in (di_errors, module_errors) for cls in public(each, BaseException)]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"docs/{PAGE.name}: {len(page().splitlines())} lines")
