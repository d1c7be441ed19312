"""Every error of the container, as one tree.

    ConfigurationError
    └── DIError                            something about modules, providers or the objects made from them
        ├── GraphErrors                    all that is wrong with a module graph, before anything is created
        │
        │   found while the graph is built, gathered in a GraphErrors
        ├── InvalidModule                  something in `imports` that is no module, or metadata that can't be used
        ├── ConflictingModules             two dynamic modules of one key with different options
        ├── InvalidProvider                something in `providers` that is no provider, or that can't work
        ├── UnknownExport                  an export that is neither provided nor imported
        ├── UnreadableAnnotation           a parameter whose annotation can't be read
        ├── UnresolvedDependency           parameters that nothing visible provides
        ├── CircularAlias                  aliases that lead back to themselves
        ├── CircularDependency             constructors that need each other
        ├── CaptiveDependency              something that lives longer than what it depends on
        ├── UnknownOverride                an override of something that isn't there
        │
        │   raised while the application runs
        ├── NotFound                       a token that nothing provides
        ├── AmbiguousToken                 a token that several modules provide
        ├── WrongScope                     `get()` of something that has no single instance
        ├── OutOfScope                     something job-scoped, and there is no current job
        ├── NotReady                       asked too early or too late
        └── AwaitableValue                 an awaitable where a value was expected

All fields are text, numbers or tuples of them, so that every error can be pickled, compared and shown in another process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from toril.errors import ConfigurationError

_LAZY: Final = "the safer way, read with `.get()` after `__init__`"
_FORWARD: Final = "which leaves the uses as they are, but whose attributes are unset while `__init__` runs"
"""The two ways to break a circle of constructors, and what each costs."""


class DIError(ConfigurationError):
    """Base of everything that is wrong with modules and providers."""


class GraphErrors(DIError):
    """All problems of a module graph at once. Nothing was instantiated."""

    def __init__(self, errors: Sequence[DIError]) -> None:
        super().__init__(errors)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        count = "1 problem" if len(self.errors) == 1 else f"{len(self.errors)} problems"
        parts = [f"{count} in the module graph (nothing was instantiated):"]
        for number, error in enumerate(self.errors, 1):
            text = str(error).replace("\n", "\n     ")
            parts.append(f"  {number}) [{type(error).__name__}] {text}")
        return "\n\n".join(parts)


# ── found while the graph is built ────────────────────────────────────────────────────────────────────────────


class InvalidModule(DIError):
    """Something stands where a module belongs, or a module's metadata can't be used. `path` leads to it from the root."""

    def __init__(self, module: str, reason: str, hint: str, path: str = "", place: str = "") -> None:
        super().__init__(module, reason, hint, path, place)
        self.module, self.reason, self.hint, self.path, self.place = module, reason, hint, path, place

    def __str__(self) -> str:
        return f"{self.module}{_at(self.place)}: {self.reason}. {self.hint}{_path(self.path)}"


class ConflictingModules(DIError):
    """Two dynamic modules have the same class and key, but not the same options: one of them would be ignored.

    Args:
        first: where the one is written; `second` is where the other is.
        differing: the names of the options in which they differ.
        paths: the ways to the two.
        values: what the two say for these options, as far as it may be shown.
    """

    def __init__(
        self,
        module: str,
        key: str,
        first: str,
        second: str,
        differing: Sequence[str],
        paths: tuple[str, str],
        values: tuple[str, str] = ("", ""),
    ) -> None:
        super().__init__(module, key, first, second, differing, paths, values)
        self.module, self.key, self.first, self.second = module, key, first, second
        self.differing, self.paths, self.values = tuple(differing), paths, values

    def __str__(self) -> str:
        places = zip((self.first, self.second), self.values, self.paths, strict=True)
        lines = [f"  - {place}{f': {values}' if values else ''} (module path: {path})\n" for place, values, path in places]
        return (
            f"{self.module} is imported twice with key {self.key} and other options ({' and '.join(self.differing)}), "
            f"and one of the two would be ignored:\n{''.join(lines)}"
            "Configure it once: remove one of the two, or give both the same options."
        )


class InvalidProvider(DIError):
    """Something in `providers` that is no provider, or that can't work as one."""

    def __init__(self, provider: str, module: str, reason: str, hint: str, place: str = "", path: str = "") -> None:
        super().__init__(provider, module, reason, hint, place, path)
        self.provider, self.module, self.reason, self.hint = provider, module, reason, hint
        self.place, self.path = place, path

    def __str__(self) -> str:
        where = f" in {self.module}" if self.module else ""
        return f"provider {self.provider}{where}{_at(self.place)}: {self.reason}. {self.hint}{_path(self.path)}"


class UnknownExport(DIError):
    """A module exports something that it neither provides nor imports."""

    def __init__(self, module: str, export: str, hints: Sequence[str] = (), place: str = "", path: str = "") -> None:
        super().__init__(module, export, hints, place, path)
        self.module, self.export, self.hints = module, export, tuple(hints)
        self.place, self.path = place, path

    def __str__(self) -> str:
        return (
            f"{self.module}{_at(self.place)} exports {self.export}, but it is neither one of its providers nor one of its "
            f"imported modules.{_bullets(self.hints) or ' Add it to providers or to imports.'}{_path(self.path)}"
        )


class UnreadableAnnotation(DIError):
    """A parameter tells the container nothing: it has no annotation, or one that can't be evaluated or used."""

    def __init__(
        self, consumer: str, parameter: str, index: int, annotation: str, reason: str, hint: str, place: str = "", path: str = ""
    ) -> None:
        super().__init__(consumer, parameter, index, annotation, reason, hint, place, path)
        self.consumer, self.parameter, self.index, self.annotation = consumer, parameter, index, annotation
        self.reason, self.hint, self.place, self.path = reason, hint, place, path

    def __str__(self) -> str:
        shown = f"{self.parameter}: {self.annotation}" if self.annotation else self.parameter
        return (
            f"can't read the argument '{shown}' at index [{self.index}] of {self.consumer}{_at(self.place)}: "
            f"{self.reason}. {self.hint}{_path(self.path)}"
        )


class UnresolvedDependency(DIError):
    """Nothing that the module can see provides some parameters of a constructor or factory.

    Args:
        consumer: name of the class or factory.
        parameters: the text of each of its parameters, in order.
        missing: indices into `parameters` of those that nothing provides.
    """

    def __init__(
        self,
        consumer: str,
        module: str,
        parameters: Sequence[str],
        missing: Sequence[int],
        hints: Sequence[str] = (),
        place: str = "",
        path: str = "",
    ) -> None:
        super().__init__(consumer, module, parameters, missing, hints, place, path)
        self.consumer, self.module, self.parameters = consumer, module, tuple(parameters)
        self.missing, self.hints, self.place, self.path = tuple(missing), tuple(hints), place, path

    def __str__(self) -> str:
        known = (text.partition(": ")[2] or text for text in self.parameters)
        call = ", ".join("?" if index in self.missing else text for index, text in enumerate(known))
        what = ", ".join(f"'{self.parameters[index]}' at index [{index}]" for index in self.missing)
        word = "argument" if len(self.missing) == 1 else "arguments"
        verb = "is" if len(self.missing) == 1 else "are"
        return (
            f"can't resolve dependencies of {self.consumer} ({call}){_at(self.place)}. Please make sure that the {word} {what} "
            f"{verb} available in the {self.module} context.{_bullets((*self.hints, f'module path: {self.path}'))}"
        )


class CircularAlias(DIError):
    """Aliases (`use_existing`) that lead back to themselves. `steps` are their tokens, in order."""

    def __init__(self, steps: Sequence[str], place: str = "", path: str = "") -> None:
        super().__init__(steps, place, path)
        self.steps, self.place, self.path = tuple(steps), place, path

    def __str__(self) -> str:
        loop = " -> ".join((*self.steps, self.steps[0]))
        fix = "Let one of them name a provider that makes an object."
        return f"aliases lead back to themselves: {loop}{_at(self.place)}. {fix}{_path(self.path)}"


class CircularDependency(DIError):
    """Constructors or factories that need each other.

    Args:
        steps: name and module of each, in order; the last needs the first.
        parameters: the parameter of `steps[i]` that asks for the next one.
        hints: what else is known, such as a `forward_ref` that can't help here.
        places: where each is defined.
        path: the way to the module of the first.
    """

    def __init__(
        self,
        steps: Sequence[tuple[str, str]],
        parameters: Sequence[str],
        hints: Sequence[str] = (),
        places: Sequence[str] = (),
        path: str = "",
    ) -> None:
        super().__init__(steps, parameters, hints, places, path)
        self.steps, self.parameters, self.hints = tuple(steps), tuple(parameters), tuple(hints)
        self.places, self.path = tuple(places), path

    def __str__(self) -> str:
        shown = [f"{name} ({module})" for name, module in self.steps]
        if self.places:
            shown = [f"{name} ({module}, {place})" for (name, module), place in zip(self.steps, self.places, strict=True)]
        lines = ["circular dependency:", shown[0]]
        for depth, parameter in enumerate(self.parameters, 1):
            back = f"{self.steps[0][0]}   <- back to the start"
            lines.append(f"{'  ' * depth}└─ {parameter}: {shown[depth] if depth < len(shown) else back}")
        lines.append(f"Break it on one edge: {self._how()}; or move the shared part into a third provider.")
        return "\n".join((*lines, *self.hints)) + _path(self.path)

    def _how(self) -> str:
        """What to write on the last edge that is a parameter of that name and asks for a class."""
        for at in reversed(range(len(self.steps))):
            parameter, wanted = self.parameters[at], self.steps[(at + 1) % len(self.steps)][0]
            if parameter.isidentifier() and not wanted.startswith(("'", '"')):
                lazy, forward = f"`{parameter}: Lazy[{wanted}]`", f"`{parameter}: Annotated[{wanted}, forward_ref(lambda: {wanted})]`"
                return f"in {self.steps[at][0]}, say, by {lazy}, {_LAZY}; or by {forward}, {_FORWARD}"
        return f"inject Lazy[X], {_LAZY}; or Annotated[X, forward_ref(lambda: X)], {_FORWARD}"


class CaptiveDependency(DIError):
    """Something that lives as long as the application depends on something that lives as long as a job.

    Args:
        chain: names from the captor to what is job-scoped, and `JobRef` if that asks for the current job.
        reason: why it can't become job-scoped by itself.
        hints: the ways out, the least change first.
    """

    def __init__(
        self,
        captor: str,
        module: str,
        chain: Sequence[str],
        reason: str,
        hints: Sequence[str] = (),
        place: str = "",
        path: str = "",
    ) -> None:
        super().__init__(captor, module, chain, reason, hints, place, path)
        self.captor, self.module, self.chain, self.reason = captor, module, tuple(chain), reason
        self.hints, self.place, self.path = tuple(hints), place, path

    def __str__(self) -> str:
        made = [name for name in self.chain[1:] if name != "JobRef"]
        short_lived = f"{made[-1]} only as long as one job" if made else "the current job only as long as it runs"
        return (
            f"{self.captor} lives as long as the application, {short_lived}: {self.captor} in {self.module}"
            f"{_at(self.place)} depends on the job scope ({' -> '.join(self.chain)}), but {self.reason}."
            f"{_bullets(self.hints)}{_path(self.path)}"
        )


class UnknownOverride(DIError):
    """An override names a provider or module that the graph doesn't have."""

    def __init__(self, target: str, kind: str, near: Sequence[str] = (), place: str = "") -> None:
        super().__init__(target, kind, near, place)
        self.target, self.kind, self.near, self.place = target, kind, tuple(near), place

    def __str__(self) -> str:
        near = f"; did you mean {' or '.join(self.near)}?" if self.near else "."
        return f"the {self.kind} {self.target} can't be overridden{_at(self.place)}, because the graph has no such {self.kind}{near}"


# ── raised while the application runs ─────────────────────────────────────────────────────────────────────────


class NotFound(DIError):
    """Nothing provides the token, in the whole application or as seen from one module."""

    def __init__(self, token: str, module: str = "", hints: Sequence[str] = ()) -> None:
        super().__init__(token, module, hints)
        self.token, self.module, self.hints = token, module, tuple(hints)

    def __str__(self) -> str:
        where = f"visible in {self.module}" if self.module else "in the application"
        return f"nothing {where} provides {self.token}{_bullets(self.hints)}"


class AmbiguousToken(DIError):
    """Several modules provide the token, each its own object."""

    def __init__(self, token: str, modules: Sequence[str]) -> None:
        super().__init__(token, modules)
        self.token, self.modules = token, tuple(modules)

    def __str__(self) -> str:
        return (
            f"{self.token} is provided by several modules ({', '.join(self.modules)}): "
            "say which with select(Module).get(...), or take all with get_all(...)."
        )


class WrongScope(DIError):
    """`get()` was asked for something that has no single instance, or a sync call for something async. `instead` is the fix."""

    def __init__(self, token: str, reason: str, instead: str) -> None:
        super().__init__(token, reason, instead)
        self.token, self.reason, self.instead = token, reason, instead

    def __str__(self) -> str:
        return f"{self.token} {self.reason}. {self.instead}"


class OutOfScope(DIError):
    """Something job-scoped was asked for where no job is current."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token

    def __str__(self) -> str:
        return (
            f"{self.token} is job-scoped, and there is no current job. "
            "Ask for it while a job runs, or open a scope: `async with ctx.job_scope(job) as scope: await scope.resolve(...)`."
        )


class NotReady(DIError):
    """The application is not in a state that allows what was asked."""

    def __init__(self, what: str, state: str, needed: str) -> None:
        super().__init__(what, state, needed)
        self.what, self.state, self.needed = what, state, needed

    def __str__(self) -> str:
        return f"{self.what}: the application context is {self.state}; this needs it to be {self.needed}."


class AwaitableValue(DIError):
    """A constructor or plain factory returned an awaitable: what would be injected is not the object but a promise of it."""

    def __init__(self, provider: str, module: str, kind: str) -> None:
        super().__init__(provider, module, kind)
        self.provider, self.module, self.kind = provider, module, kind

    def __str__(self) -> str:
        return (
            f"the factory of {self.provider} in {self.module} returned a {self.kind} instead of an object. "
            "Declare the factory with `async def`, so that it is awaited before anything depends on it."
        )


def _at(place: str) -> str:
    return f" ({place})" if place else ""


def _path(path: str) -> str:
    return f"\n- module path: {path}" if path else ""


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"\n- {line}" for line in lines)
