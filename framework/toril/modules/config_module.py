"""Makes an application's settings injectable everywhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

from toril.calls import explained
from toril.di import DynamicModule, Provider, caller_place, module, provide
from toril.modules.settings import TorilSettings
from toril.modules.settings_loader import SettingsT, load_settings


@module()
class ConfigModule:
    """Imported once, by the root module: `ConfigModule.for_root(AppSettings)`. It is global, so nobody else needs to import it."""

    @staticmethod
    @explained()
    def for_root(model: type[SettingsT], *, folder: Path | None = None, env: str | None = None) -> DynamicModule:
        """Provide an instance of `model` under its own class, and under `TorilSettings` for the library's own modules.

        Files and variables are read when the application starts, not when modules are imported; `SettingsError` then tells of
        all mistakes at once. Tests replace the settings: `.override_provider(AppSettings).use_value(AppSettings(...))`.

        Args:
            model: a subclass of `TorilSettings`.
            folder: where the files are; see `load_settings`.
            env: which environment; by default `TORIL_ENV` decides.
        """

        async def read_settings() -> TorilSettings:
            return await asyncio.to_thread(load_settings, model, folder=folder, env=env)

        providers: list[Provider] = [provide(model, use_factory=read_settings, inject=[])]
        tokens: list[type] = [model]
        if model is not TorilSettings:
            providers.append(provide(TorilSettings, use_existing=model))
            tokens.append(TorilSettings)
        return DynamicModule(
            ConfigModule,
            key="settings",
            providers=providers,
            exports=tokens,
            is_global=True,
            options=(model, folder, env),
            place=caller_place(1),
        )
