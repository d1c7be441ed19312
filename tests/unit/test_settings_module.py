from __future__ import annotations

from pathlib import Path

import pytest

from toril.di import ApplicationContext, ConflictingModules, GraphErrors, Overrides, build_graph, module, provide
from toril.di.overrides import NO_OVERRIDES
from toril.errors import SettingsError
from toril.modules.config_module import ConfigModule
from toril.modules.settings import TorilSettings


class Settings(TorilSettings):
    greeting: str = "hello"


class Greeter:
    def __init__(self, settings: Settings, library: TorilSettings) -> None:
        self.settings, self.library = settings, library


@module(providers=[Greeter], exports=[Greeter])
class GreeterModule: ...


def context_of(*imports: object, overrides: Overrides = NO_OVERRIDES) -> ApplicationContext:
    @module(imports=imports)
    class AppModule: ...

    return ApplicationContext(build_graph(AppModule, overrides=overrides))


async def test_every_module_gets_the_settings_by_their_class_without_importing_anything(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text('greeting = "from the file"')
    async with context_of(ConfigModule.for_root(Settings, folder=tmp_path), GreeterModule) as context:
        greeter = context.get(Greeter)
    assert greeter.settings.greeting == "from the file"
    assert greeter.library is greeter.settings


async def test_the_librarys_own_settings_can_be_used_as_they_are(tmp_path: Path) -> None:
    async with context_of(ConfigModule.for_root(TorilSettings, folder=tmp_path)) as context:
        assert context.get(TorilSettings).prefix is None


async def test_mistakes_come_out_at_start_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text('greting = "x"\nshutdown_timeout = 5')
    context = context_of(ConfigModule.for_root(Settings, folder=tmp_path), GreeterModule)
    with pytest.raises(SettingsError) as caught:
        await context.start()
    assert len(caught.value.problems) == 2


def test_two_imports_with_different_options_contradict_each_other(tmp_path: Path) -> None:
    first, same = ConfigModule.for_root(Settings, folder=tmp_path), ConfigModule.for_root(Settings, folder=tmp_path)
    context_of(first, same)
    with pytest.raises(GraphErrors) as caught:
        context_of(first, ConfigModule.for_root(Settings, env="test"))
    assert [type(error) for error in caught.value.errors] == [ConflictingModules]


async def test_a_test_puts_settings_of_its_own_in_their_place_and_no_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "default.toml").write_text("not toml")
    overrides = Overrides(providers=[provide(Settings, use_value=Settings(greeting="from the test"))])
    async with context_of(ConfigModule.for_root(Settings, folder=tmp_path), GreeterModule, overrides=overrides) as context:
        assert context.get(Greeter).library is context.get(Greeter).settings
        assert context.get(Greeter).settings.greeting == "from the test"
