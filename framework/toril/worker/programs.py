"""What a child process runs: named so that it can be imported there, since nothing but text reaches a child."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from toril.callables import place_of
from toril.errors import InvalidOptionError
from toril.queues.job_def import JobDef

FUNCTIONS: Final = "toril.worker.serving:serve_functions"


@dataclass(frozen=True, slots=True)
class ChildProgram:
    """How a child process makes what it runs. Children of equal programs are shared; `target` is what one handler adds to it."""

    entry: str
    """The import path of what makes it in the child, an `Entry` of `serving.py`."""
    told: str = "{}"
    """What that is told, as JSON."""
    target: str = ""
    """Sent with each job: what the entry finds the handler by, besides the job's name."""

    @property
    def key(self) -> tuple[str, str]:
        """Equal for programs that one child can run."""
        return self.entry, self.told


def import_path(thing: Callable[..., Any] | type) -> str:
    """`package.file:Class.method`, by which another process finds it. Raises ValueError with the reason why it can't."""
    module, name = thing.__module__, getattr(thing, "__qualname__", "")
    if module == "__main__":
        raise ValueError("is defined in the file that is run, which a child process can't import")
    if "<" in name:
        raise ValueError("is defined inside of a function, where a child process can't find it")
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not thing:
        raise ValueError(f"is not what {module} calls {name or 'by a name'}, so a child process can't find it")
    return f"{module}:{name}"


def imported(path: str) -> Any:  # noqa: ANN401 -- whatever has this path
    """What `import_path` named. Raises what its import raises."""
    module, _, name = path.partition(":")
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def function_program(call: Callable[..., Any], definition: object) -> ChildProgram:
    """The program of a function without a container.

    Raises:
        InvalidOptionError: the function, or the `JobDef` that tells its types, can't be found by a child.
    """
    try:
        path = import_path(call)
    except ValueError as error:
        reason = f"{place_of(call)} {error}: move it to the top level of a file that is imported"
        raise InvalidOptionError("executor", "process", reason) from None
    name = ""
    if isinstance(definition, JobDef):
        known = cast("dict[str, object]", getattr(call, "__globals__", {}))
        names = [name for name, value in known.items() if value is definition]
        if not names:
            reason = f"a child looks for the JobDef {definition.name!r} in the file of {place_of(call)}: define or import it there"
            raise InvalidOptionError("executor", "process", reason)
        name = names[0]
    return ChildProgram(FUNCTIONS, target=f"{path} {name}")
