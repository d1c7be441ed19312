"""A service asks for something that no module lists."""

from __future__ import annotations

from toril import module


class TemplateStore:
    def render(self, name: str) -> str:
        return f"<p>{name}</p>"


class InvoiceService:
    def __init__(self, templates: TemplateStore) -> None:
        self.templates = templates


@module(providers=[InvoiceService], exports=[InvoiceService])
class InvoiceModule: ...


@module(imports=[InvoiceModule])
class AppModule: ...
