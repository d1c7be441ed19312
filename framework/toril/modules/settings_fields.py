"""Walks through a settings model: which keys it knows, which of them hold secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast, get_args

from pydantic import AliasChoices, BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from toril.telemetry.redaction import is_secret_name


def known_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Each key that fills a field of the model, by its name and by its aliases where they count."""
    by_name = bool(model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name"))
    fields: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        if alias is None or by_name:
            fields[name] = field
        fields.update({choice: field for choice in choices if isinstance(choice, str)})
    return fields


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model that the field's table fills, also for an optional one; None for plain values."""
    found = list(_classes(field.annotation, BaseModel))
    return found[0] if len(found) == 1 else None


def unknown_keys(
    model: type[BaseModel], data: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Sequence[str]]]:
    """Each key that no field takes, as a path from the root, with the keys that its table knows.

    Sections are looked through even where their model would ignore what it doesn't know: a setting that does nothing is a typo.
    """
    fields = known_fields(model)
    for key, value in data.items():
        if key not in fields:
            if model.model_config.get("extra") != "allow":
                yield (*above, key), tuple(fields)
        elif isinstance(value, dict) and (section := section_of(fields[key])) is not None:
            yield from unknown_keys(section, cast("dict[str, Any]", value), (*above, key))


def field_at(model: type[BaseModel], path: Sequence[str | int]) -> FieldInfo | None:
    """The field at this path, or the last one on the way to it that is no section."""
    field: FieldInfo | None = None
    section: type[BaseModel] | None = model
    for step in path:
        if section is None:
            break
        field = known_fields(section).get(str(step))
        section = None if field is None else section_of(field)
    return field


def is_secret(model: type[BaseModel], path: Sequence[str | int]) -> bool:
    """Whether the value there must never be shown: by its type, or by a name on its path."""
    if any(is_secret_name(step) for step in path if isinstance(step, str)):
        return True
    field = field_at(model, path)
    return field is not None and any(True for _ in _classes(field.annotation, (SecretStr, SecretBytes)))


def _classes(annotation: object, kinds: type[Any] | tuple[type[Any], ...]) -> Iterator[type[Any]]:
    if isinstance(annotation, type) and issubclass(annotation, kinds):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes(argument, kinds)
