from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field, SecretStr, field_validator

from toril.errors import SettingsError
from toril.modules.settings import DurationSetting, SettingsSection, TorilSettings
from toril.modules.settings_loader import load_settings, project_folder

WriteFiles = Callable[..., Path]


class Mail(SettingsSection):
    sender: str = "nobody@example.com"
    port: int = 25
    pause: DurationSetting = timedelta(seconds=1)
    tags: tuple[str, ...] = ()
    api_key: int = 0


class PlainSection(BaseModel):  # pydantic's own default ignores unknown keys
    size: int = 1


class Settings(TorilSettings):
    smtp_url: SecretStr | None = Field(default=None, validation_alias="smtp_url")
    mail: Mail = Mail()
    plain: PlainSection | None = None
    mode: Literal["fast", "safe"] = "safe"

    @field_validator("smtp_url")
    @classmethod
    def must_be_smtp(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith("smtp"):
            raise ValueError(f"not an address of a mail server: {value.get_secret_value()}")
        return value


class Needy(TorilSettings):
    owner: str
    mail: Mail


@pytest.fixture
def write(tmp_path: Path) -> WriteFiles:
    def write_files(**files: str) -> Path:
        for stem, text in files.items():
            (tmp_path / f"{stem}.toml").write_text(text, encoding="utf-8")
        return tmp_path

    return write_files


def problems_of(folder: Path, environ: Mapping[str, str] | None = None, model: type[TorilSettings] = Settings) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(model, folder=folder, environ=environ or {})
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


def test_later_sources_win_key_by_key_inside_of_sections_too(write: WriteFiles) -> None:
    folder = write(
        default='prefix = "a"\nmode = "fast"\n[mail]\nsender = "default"\nport = 1\npause = "1m"',
        production='prefix = "b"\n[mail]\nport = 2\n[log]\nformat = "json"',
    )
    settings = load_settings(Settings, folder=folder, environ={"TORIL_ENV": "production", "TORIL_MAIL__PAUSE": "2s"})
    assert (settings.env, settings.prefix, settings.mode, settings.log.format) == ("production", "b", "fast", "json")
    assert settings.mail == Mail(sender="default", port=2, pause=timedelta(seconds=2))


def test_addresses_come_from_variables_without_prefix_and_are_never_shown(tmp_path: Path) -> None:
    environ = {"REDIS_URL": "redis://:hunter2@db/0", "SMTP_URL": "smtp://me:hunter2@mail", "TORIL_SHUTDOWN_TIMEOUT": "1m30s"}
    settings = load_settings(Settings, folder=tmp_path, environ=environ)
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://:hunter2@db/0"
    assert settings.smtp_url is not None
    assert settings.shutdown_timeout == timedelta(seconds=90)
    assert "hunter2" not in repr(settings)


def test_variables_hold_json_for_lists_and_tables_and_empty_ones_count_as_unset(write: WriteFiles) -> None:
    environ = {"TORIL_MAIL__TAGS": '["a", "b"]', "TORIL_LOG": '{"levels": {"toril.worker": "debug"}}', "REDIS_URL": "", "toril_prefix": "x"}
    settings = load_settings(Settings, folder=write(), environ=environ)
    assert settings.mail.tags == ("a", "b")
    assert settings.log.levels == {"toril.worker": "debug"}
    assert settings.redis_url is None
    assert settings.prefix == "x"


def test_without_files_or_variables_the_defaults_hold_in_development(tmp_path: Path) -> None:
    settings = load_settings(Settings, folder=tmp_path, environ={})
    assert (settings.env, settings.prefix, settings.mail.port) == ("development", None, 25)


def test_a_model_made_directly_reads_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORIL_PREFIX", "from-outside")
    monkeypatch.setenv("REDIS_URL", "redis://outside")
    assert (Settings().prefix, Settings().redis_url) == (None, None)
    assert Settings(prefix="given").prefix == "given"


def test_by_default_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORIL_PREFIX", "from-outside")
    monkeypatch.delenv("TORIL_ENV", raising=False)
    assert load_settings(Settings, folder=tmp_path).prefix == "from-outside"


def test_an_unknown_key_is_named_with_its_file_and_a_near_match(write: WriteFiles) -> None:
    folder = write(default="prefx = 1\n[mail]\nsendr = 'x'\n[plain]\nsise = 2", development="[mial]\nport = 1")
    assert problems_of(folder) == [
        "default.toml: prefx: unknown key; did you mean 'prefix'?",
        "default.toml: mail.sendr: unknown key; did you mean 'sender'?",
        "default.toml: plain.sise: unknown key; did you mean 'size'?",
        "development.toml: mial: unknown key; did you mean 'mail'?",
    ]


def test_a_misspelled_variable_is_named_and_one_of_another_application_is_left_alone(write: WriteFiles) -> None:
    environ = {"TORIL_LOG_LEVEL": "debug", "TORIL_REDIS_URL": "redis://h", "TORIL_MAIL__SENDR": "x", "TORIL_OTHER_APPS_THING": "1"}
    assert problems_of(write(), environ) == [
        "TORIL_LOG_LEVEL: no such setting; did you mean TORIL_LOG__LEVEL?",
        "TORIL_REDIS_URL: no such setting; did you mean REDIS_URL?",
        "TORIL_MAIL__SENDR: unknown key; did you mean 'sender'?",
    ]


def test_every_wrong_value_is_named_at_once_with_its_place_and_what_is_expected(write: WriteFiles) -> None:
    folder = write(
        default="mode = 'slow'\nshutdown_timeout = 25\n[mail]\nport = 'many'\ntags = ['a', 2]",
        development="[log]\nlevel = 'loud'",
    )
    assert problems_of(folder, {"TORIL_CONNECT_TIMEOUT": "-5s", "TORIL_MAIL__TAGS": "a,b"}) == [
        "TORIL_MAIL__TAGS: is not valid JSON, which this setting needs",
        'default.toml: shutdown_timeout: a bare number has no unit: write "25s" or "25ms" (or a timedelta), not 25',
        "TORIL_CONNECT_TIMEOUT: a duration can't be negative, not '-5s'",
        "development.toml: log.level: should be 'debug', 'info', 'warning', 'error' or 'critical', not 'loud'",
        "default.toml: mail.port: should be a valid integer, unable to parse string as an integer, not 'many'",
        "default.toml: mail.tags[1]: should be a valid string, not 2",
        "default.toml: mode: should be 'fast' or 'safe', not 'slow'",
    ]


def test_the_last_source_of_a_wrong_value_is_blamed(write: WriteFiles) -> None:
    folder = write(default="[mail]\nport = 'one'", development="[mail]\nport = 'two'")
    assert problems_of(folder) == [
        "development.toml: mail.port: should be a valid integer, unable to parse string as an integer, not 'two'"
    ]
    assert problems_of(folder, {"TORIL_MAIL__PORT": "three"})[0].startswith("TORIL_MAIL__PORT: should be a valid integer")


def test_a_required_setting_says_where_it_can_be_set(write: WriteFiles) -> None:
    assert problems_of(write(), model=Needy) == [
        "owner is required: set it in default.toml, or as TORIL_OWNER",
        "mail is required: set it in default.toml, or as TORIL_MAIL",
    ]


def test_a_secret_value_is_not_shown_even_if_a_validator_repeats_it(write: WriteFiles) -> None:
    folder = write(default="redis_url = 6379\n[mail]\napi_key = 'hunter2'")
    found = problems_of(folder, {"SMTP_URL": "imap://me:hunter2@mail"})
    assert found == [
        "default.toml: redis_url: should be a valid string",
        "SMTP_URL: not an address of a mail server: ***",
        "default.toml: mail.api_key: should be a valid integer, unable to parse string as an integer",
    ]


def test_an_environment_without_a_file_is_refused_with_those_that_have_one(write: WriteFiles) -> None:
    folder = write(default="", production="", test="")
    assert problems_of(folder, {"TORIL_ENV": "prodution"}) == [
        "TORIL_ENV=prodution: there is no prodution.toml; did you mean 'production'?"
    ]
    assert problems_of(folder, {"TORIL_ENV": "x"}) == ["TORIL_ENV=x: there is no x.toml (known: production, test)"]
    assert problems_of(folder, {"TORIL_ENV": "default"})[0].startswith("TORIL_ENV=default: there is no default.toml")
    assert problems_of(folder, {"TORIL_ENV": "../secrets"})[0].startswith("TORIL_ENV=../secrets: there is no")


def test_the_environment_can_not_be_chosen_inside_of_a_file(write: WriteFiles) -> None:
    assert problems_of(write(default='env = "production"')) == ["default.toml: env: not here: TORIL_ENV chooses the environment"]


def test_a_file_that_is_no_toml_is_named_with_the_line(write: WriteFiles) -> None:
    (problem,) = problems_of(write(default="prefix = 'a'\nprefix = a\nmode = 'safe'"))
    assert problem.startswith("default.toml: can't be read: ")
    assert "line 2" in problem


def test_a_folder_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(Settings, folder=tmp_path / "nowhere", environ={})
    assert caught.value.problems == (f"{tmp_path / 'nowhere'}: there is no such folder",)


def test_the_folder_is_that_of_the_project_also_when_started_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "default.toml").write_text('prefix = "found"')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert project_folder() == tmp_path
    assert load_settings(Settings, environ={}).prefix == "found"
