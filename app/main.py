"""The application's root module: `toril worker app.main:AppModule`."""

from __future__ import annotations

from app.email.module import EmailModule
from app.settings import AppSettings
from toril import ConfigModule, QueueModule, module


@module(
    imports=[
        ConfigModule.for_root(AppSettings),
        QueueModule.register_queue("notifications"),
        EmailModule,
    ]
)
class AppModule:
    """Everything."""
