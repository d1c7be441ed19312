"""The application's root module: `toril worker app.main:AppModule`."""

from __future__ import annotations

from app.email.module import EmailModule
from app.notifications.module import NotificationsModule
from app.settings import AppSettings
from toril import ConfigModule, ScheduleModule, module


@module(
    imports=[
        ConfigModule.for_root(AppSettings),
        ScheduleModule.for_root(),
        EmailModule,
        NotificationsModule,
    ]
)
class AppModule:
    """Everything."""
