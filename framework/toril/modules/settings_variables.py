"""Reads settings from environment variables."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from toril.modules.settings_fields import known_fields, section_of

PREFIX: Final = "TORIL_"
_DELIMITER: Final = "__"
_ALIKE: Final = 0.85
"""How alike two names must be to be taken for a misspelling: `TORIL_LOG_LEVEL` and `TORIL_LOG__LEVEL` are at 0.97."""


class Variables:
    """The values that variables give to a model; `problems` are those that can't be read at all."""

    def __init__(self, model: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._model = model
        self._given = {name.upper(): name for name, value in environ.items() if value}
        source = _EnvironSource(model, environ)
        self.data: Mapping[str, Any] = source()
        self.problems = [f"{self._given[name.upper()]}: is not valid JSON, which this setting needs" for name in source.unreadable]
        self.problems += self._misspelled()

    def place(self, path: Sequence[str | int]) -> str:
        """The variable that gave this value: the most exact one that is set."""
        for end in range(len(path), 0, -1):
            name = self.name_of(self._model, path[:end])
            if name in self._given:
                rest = "".join(f".{step}" for step in path[end:])
                return self._given[name] + rest
        return self.name_of(self._model, path)

    @staticmethod
    def name_of(model: type[BaseModel], path: Sequence[str | int]) -> str:
        """The variable for a setting: `TORIL_MAIL__SENDER`, or `REDIS_URL` for a field with an alias."""
        first, *rest = [str(step) for step in path]
        field = known_fields(model).get(first)
        bare = field is not None and field.validation_alias is not None
        return _DELIMITER.join([first if bare else PREFIX + first, *rest]).upper()

    def _misspelled(self) -> Iterator[str]:
        """Variables that begin with our prefix and look like a setting's, but are none.

        Others with the prefix are left alone: they may belong to another application that shares the environment.
        """
        known = list(_all_names(self._model))
        for name, spelled in sorted(self._given.items()):
            if not name.startswith(PREFIX) or any(name == one or name.startswith(one + _DELIMITER) for one in known):
                continue
            if (bare := name.removeprefix(PREFIX)) in known:
                yield f"{spelled}: no such setting; did you mean {bare}?"
            elif close := difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE):
                yield f"{spelled}: no such setting; did you mean {close[0]}?"


class _EnvironSource(EnvSettingsSource):
    """pydantic-settings' reading of nested variables, of a given environment, without stopping at the first mistake."""

    def __init__(self, model: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(model, case_sensitive=False)
        self.env_vars = {name.lower(): value for name, value in environ.items() if value}
        self.unreadable: list[str] = []

    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:  # noqa: ANN401  # its signature
        try:
            return super().prepare_field_value(field_name, field, value, value_is_complex)
        except ValueError:
            self.unreadable += self._unreadable_of(field_name, field)
            return None

    def _unreadable_of(self, field_name: str, field: FieldInfo) -> Iterator[str]:
        """Which of the variables of a field can't be read: each is tried alone."""
        everything = self.env_vars
        for name, value in everything.items():
            self.env_vars = {name: value}
            own_value, _, is_complex = self.get_field_value(field, field_name)
            try:
                super().prepare_field_value(field_name, field, own_value, is_complex)
            except ValueError:
                yield name
        self.env_vars = everything


def _all_names(model: type[BaseModel], above: tuple[str, ...] = (), root: type[BaseModel] | None = None) -> Iterator[str]:
    for key, field in known_fields(model).items():
        yield Variables.name_of(root or model, (*above, key))
        if (section := section_of(field)) is not None:
            yield from _all_names(section, (*above, key), root or model)
