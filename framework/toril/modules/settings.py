"""The settings model that an application extends."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from toril.durations import to_ms
from toril.telemetry.logs import LogFormat, LogLevel


def _read_duration(value: timedelta | str, info: ValidationInfo) -> timedelta:
    return timedelta(milliseconds=to_ms(value, info.field_name or "duration"))


DurationSetting: TypeAlias = Annotated[timedelta, BeforeValidator(_read_duration)]
"""A setting written as `"30s"` or `"1h30m"`; a bare number is refused."""


class SettingsSection(BaseModel):
    """A table of a settings file: `[mail]` fills the field `mail`, and so does `TORIL_MAIL__…`. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class LogSettings(SettingsSection):
    """What `configure_logging` is called with."""

    format: LogFormat = "auto"
    level: LogLevel = "info"
    levels: dict[str, LogLevel] = {}
    """Other levels for single loggers, by name."""


class TorilSettings(BaseSettings):
    """The settings that the library itself reads. An application adds its own fields in a subclass.

    Each field is a key in `config/*.toml` and a variable `TORIL_NAME` (`TORIL_SECTION__KEY` inside of a section). A field with
    `Field(validation_alias="redis_url")`, that is with its own name as its alias, has a variable without prefix: `REDIS_URL`.

    Made by `load_settings`. Called directly, as tests do, it takes its arguments and reads neither files nor variables.
    """

    model_config = SettingsConfigDict(
        env_prefix="TORIL_",
        env_nested_delimiter="__",
        env_ignore_empty=True,  # how compose files spell "not set"
        extra="forbid",
        frozen=True,
        validate_default=True,
        nested_model_default_partial_update=False,
    )

    env: str = "development"
    """The environment, chosen by `TORIL_ENV`: the name of a file in the settings folder."""

    redis_url: SecretStr | None = Field(default=None, validation_alias="redis_url")
    """The server's address, from `REDIS_URL`; None: the embedded server."""

    prefix: str | None = Field(default=None, min_length=1)
    """What every key of every queue begins with; None: `bull`, and on a Cluster `{bull}`."""

    shutdown_timeout: DurationSetting = timedelta(seconds=25)
    """How long running jobs may go on after a stop signal before they are cancelled and put back."""

    connect_timeout: DurationSetting = timedelta(seconds=30)
    """How long a worker waits for its server at start before it gives up."""

    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments only: reading files and variables is the work of `load_settings`, which knows where each value came from."""
        return (init_settings,)
