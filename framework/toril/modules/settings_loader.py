"""Reads settings from files and variables, and tells of everything that is wrong with them at once.

config/default.toml  ◄── config/{TORIL_ENV}.toml  ◄── variables      the right one wins, key by key, sections too
        └───────────────────────┬──────────────────────┘
                 one dict ► the model ► an instance, or each problem with the file or variable it came from
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

from pydantic import ValidationError

from toril.errors import InvalidOptionError, SettingsError
from toril.modules.settings import TorilSettings
from toril.modules.settings_fields import is_secret, unknown_keys
from toril.modules.settings_variables import Variables
from toril.telemetry.redaction import redact_text

SettingsT = TypeVar("SettingsT", bound=TorilSettings)
KeyPath = tuple[str | int, ...]

ENVIRONMENT_VARIABLE: Final = "TORIL_ENV"
DEFAULT_ENVIRONMENT: Final = "development"
_DEFAULT_FILE: Final = "default"


def load_settings(
    model: type[SettingsT],
    *,
    folder: Path | None = None,
    env: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> SettingsT:
    """Make an instance of `model` from `default.toml`, then `{env}.toml`, then the environment's variables.

    Args:
        model: a subclass of `TorilSettings`.
        folder: where the files are. By default the folder `config` of the project: of the nearest folder upwards from the
            current one that holds a `pyproject.toml` or `.git`. It need not exist.
        env: which environment; by default what `TORIL_ENV` says, else `development`.
        environ: the variables; by default the process's own.

    Raises:
        SettingsError: an environment without a file, a file that isn't TOML, unknown keys, values that don't fit. All of them at
            once, each with its file or variable and key, and without secret values.
    """
    variables = os.environ if environ is None else environ
    where = project_folder() / "config" if folder is None else folder
    name = env or variables.get(ENVIRONMENT_VARIABLE) or None
    files, problems = _read_files(where, name, must_exist=folder is not None)
    name = name or DEFAULT_ENVIRONMENT
    from_variables = Variables(model, variables)
    sources: list[Source] = [*files, from_variables]
    merged = {**_merge(source.data for source in sources), "env": name}
    for file in files:
        if "env" in file.data:
            problems.append(f"{file.place(('env',))}: not here: {ENVIRONMENT_VARIABLE} chooses the environment")
    problems += from_variables.problems
    unknown: set[KeyPath] = set()
    for source in sources:
        for path, known in unknown_keys(model, source.data):
            unknown.add(path)
            problems.append(f"{source.place(path)}: unknown key{near_match(str(path[-1]), known)}")
    settings: SettingsT | None = None
    try:
        settings = model.model_validate(merged)
    except ValidationError as error:
        problems += _describe(error, model, sources, merged, unknown, where)
    if problems or settings is None:
        raise SettingsError(problems) from None  # the ValidationError underneath would print the secret values
    return settings


def project_folder(start: Path | None = None) -> Path:
    """The nearest folder from `start` (the current one) upwards with a `pyproject.toml` or `.git`; `start` itself if there is none."""
    here = (start or Path.cwd()).absolute()
    marks = ("pyproject.toml", ".git")
    return next((folder for folder in (here, *here.parents) if any((folder / mark).exists() for mark in marks)), here)


def near_match(word: str, known: Sequence[str]) -> str:
    """What to add to a message about an unknown word: the known one that looks like it, else all if they are few."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f" (known: {', '.join(sorted(known))})" if 0 < len(known) <= 12 else ""


class Source(Protocol):
    """Where values come from: one file, or the variables."""

    @property
    def data(self) -> Mapping[str, Any]:
        """The values, nested."""
        ...

    def place(self, path: KeyPath) -> str:
        """How a reader finds the value again: file and key, or variable."""
        ...


class _File:
    def __init__(self, path: Path, data: Mapping[str, Any]) -> None:
        self._shown, self.data = _shown(path), data

    def place(self, path: KeyPath) -> str:
        return f"{self._shown}: {dotted(path)}"


def dotted(path: KeyPath) -> str:
    """A path as TOML spells it, with positions in lists: `mail.senders[0]`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _read_files(folder: Path, env: str | None, *, must_exist: bool) -> tuple[list[_File], list[str]]:
    if must_exist and not folder.is_dir():
        raise SettingsError([f"{folder}: there is no such folder"])
    # Listed rather than opened by name: a name from outside then can't lead out of the folder.
    found = {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder.is_dir() else {}
    environments = [stem for stem in found if stem != _DEFAULT_FILE]
    if env is not None and found and env not in environments:
        raise SettingsError([f"{ENVIRONMENT_VARIABLE}={env}: there is no {_shown(folder / env)}.toml{near_match(env, environments)}"])
    files: list[_File] = []
    problems: list[str] = []
    for stem in (_DEFAULT_FILE, env or DEFAULT_ENVIRONMENT):
        if stem in found:
            try:
                files.append(_File(found[stem], tomllib.loads(found[stem].read_text(encoding="utf-8"))))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
                problems.append(f"{_shown(found[stem])}: can't be read: {error}")
    if problems:
        raise SettingsError(problems)
    return files, problems


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            both_tables = isinstance(below, dict) and isinstance(value, dict)
            merged[key] = _merge([cast("dict[str, Any]", below), cast("dict[str, Any]", value)]) if both_tables else value
    return merged


def _describe(
    error: ValidationError,
    model: type[TorilSettings],
    sources: Sequence[Source],
    merged: Mapping[str, Any],
    unknown: set[KeyPath],
    folder: Path,
) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        location = tuple(detail["loc"])
        path = _existing(location, merged)
        if path in unknown:
            continue
        if detail["type"] == "missing":
            variable = Variables.name_of(model, location)
            yield f"{dotted(location)} is required: set it in {_shown(folder / _DEFAULT_FILE)}.toml, or as {variable}"
            continue
        reason = _reason(detail["msg"], (detail.get("ctx") or {}).get("error"))
        hidden = is_secret(model, path)
        if hidden:
            reason = reason.replace(str(detail["input"]), "***") if detail["input"] else reason
        given = "" if hidden else _given(detail["input"])
        place = next((source.place(path) for source in reversed(sources) if path and _holds(source.data, path)), dotted(path))
        yield redact_text(f"{place or 'settings'}: {reason}{given}")


def _reason(message: str, cause: object) -> str:
    if isinstance(cause, InvalidOptionError):
        return cause.reason  # its text begins with the name of the option, which stands in the place already
    return message.removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")


def _given(value: object) -> str:
    if not isinstance(value, (str, int, float)):
        return ""
    text = repr(value)
    return f", not {text if len(text) <= 80 else text[:79] + '…'}"


def _existing(location: KeyPath, data: object) -> KeyPath:
    """The part of a location that leads through the data: pydantic appends names of union members and the like."""
    path: KeyPath = ()
    for step in location:
        try:
            data = cast("dict[str | int, object]", data)[step]
        except (LookupError, TypeError):  # not a key or position here, or nothing that has any
            break
        path += (step,)
    return path


def _holds(data: object, path: KeyPath) -> bool:
    return _existing(path, data) == path
