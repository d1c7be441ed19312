"""Typical mistakes in module graphs, each in a file of `broken_graphs/`: the whole message, and that what it says repairs it.

Each repair writes only what its message says; where a message was not enough for that, it was changed. So whoever changes one asks again
whether somebody who has nothing but the file and the message would come to the repair beside it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from toril.di import (
    CaptiveDependency,
    CircularDependency,
    ConflictingModules,
    DIError,
    Graph,
    GraphErrors,
    InvalidProvider,
    UnknownExport,
    UnreadableAnnotation,
    UnresolvedDependency,
)
from toril.modules.application_graph import graph_of
from toril.modules.errors import UnregisteredQueueError

FOLDER = Path(__file__).with_name("broken_graphs")


@dataclass(frozen=True)
class Broken:
    """One file: its only error by class, fields and text, and what to write instead of what."""

    kind: type[DIError]
    fields: dict[str, object]
    text: str
    repair: dict[str, str]


BROKEN = {
    "missing_provider": Broken(
        UnresolvedDependency,
        {"consumer": "InvoiceService", "module": "InvoiceModule", "parameters": ("templates: TemplateStore",), "missing": (0,)},
        """\
can't resolve dependencies of InvoiceService (?) ({file}:13). Please make sure that the argument 'templates: TemplateStore' at index [0] \
is available in the InvoiceModule context.
- no module provides TemplateStore: add TemplateStore to the providers of InvoiceModule, or to those of a module that InvoiceModule \
imports and that exports TemplateStore.
- module path: AppModule -> InvoiceModule""",
        {"providers=[InvoiceService]": "providers=[InvoiceService, TemplateStore]"},
    ),
    "not_exported": Broken(
        UnresolvedDependency,
        {"consumer": "SignUp", "module": "UserModule", "path": "AppModule -> UserModule"},
        """\
can't resolve dependencies of SignUp (?) ({file}:16). Please make sure that the argument 'mailer: Mailer' at index [0] \
is available in the UserModule context.
- Mailer is provided by MailModule, which does not export it: add it to the exports of MailModule.
- module path: AppModule -> UserModule""",
        {"providers=[Mailer]": "providers=[Mailer], exports=[Mailer]"},
    ),
    "not_imported": Broken(
        UnresolvedDependency,
        {"consumer": "Checkout", "module": "ShopModule"},
        """\
can't resolve dependencies of Checkout (?) ({file}:15). Please make sure that the argument 'ledger: Ledger' at index [0] \
is available in the ShopModule context.
- Ledger is exported by LedgerModule: add LedgerModule to the imports of ShopModule.
- module path: AppModule -> ShopModule""",
        {"@module(providers=[Checkout])": "@module(imports=[LedgerModule], providers=[Checkout])"},
    ),
    "constructors_in_a_circle": Broken(
        CircularDependency,
        {
            "steps": (("Orders", "AppModule"), ("Stock", "AppModule"), ("Suppliers", "AppModule")),
            "parameters": ("stock", "suppliers", "orders"),
        },
        """\
circular dependency:
Orders (AppModule, {file}:8)
  └─ stock: Stock (AppModule, {file}:13)
    └─ suppliers: Suppliers (AppModule, {file}:18)
      └─ orders: Orders   <- back to the start
Break it on one edge: in Suppliers, say, by `orders: Lazy[Orders]`, the safer way, read with `.get()` after `__init__`; \
or by `orders: Annotated[Orders, forward_ref(lambda: Orders)]`, which leaves the uses as they are, but whose attributes are unset while \
`__init__` runs; or move the shared part into a third provider.
- module path: AppModule""",
        {"orders: Orders)": "orders: Lazy[Orders])", "str(self.orders)": "str(self.orders.get())", "import module": "import Lazy, module"},
    ),
    "captive": Broken(
        CaptiveDependency,
        {
            "captor": "Importer",
            "chain": ("Importer", "Audit", "JobLogger", "JobRef"),
            "reason": "it has lifecycle hooks (on_module_init), which run once for the application",
        },
        """\
Importer lives as long as the application, JobLogger only as long as one job: Importer in AppModule ({file}:13) depends on the job scope \
(Importer -> Audit -> JobLogger -> JobRef), but it has lifecycle hooks (on_module_init), which run once for the application.
- in Importer, ask for `audit: Lazy[Audit]`, and call `self.audit.get()` while a job runs (`await self.audit.resolve()` where making it \
needs an await).
- or make Importer job-scoped, so that each job gets its own: write `@injectable(scope=Scope.JOB)` above the class; \
its hooks then never run.
- or hand the job, or what you need of it, to the method as an argument.
- module path: AppModule""",
        {"audit: Audit)": "audit: Lazy[Audit])", "self.audit.log": "self.audit.get().log", "import JobLogger": "import JobLogger, Lazy"},
    ),
    "builtin_type": Broken(
        UnresolvedDependency,
        {"consumer": "Newsletter", "parameters": ("sender: str",)},
        """\
can't resolve dependencies of Newsletter (?) ({file}:10). Please make sure that the argument 'sender: str' at index [0] \
is available in the AppModule context.
- str is a builtin type, which is no token by itself: give the parameter a default or use Annotated[str, Inject(SENDER)].
- module path: AppModule""",
        {
            "sender: str": "sender: Annotated[str, Inject(SENDER)]",
            "from toril import": "from typing import Annotated\nfrom toril import Inject,",
        },
    ),
    "standard_library_class": Broken(
        UnresolvedDependency,
        {"consumer": "Prices", "parameters": ("rate: Decimal",)},
        """\
can't resolve dependencies of Prices (?) ({file}:10). Please make sure that the argument 'rate: Decimal' at index [0] \
is available in the AppModule context.
- Decimal alone doesn't say which value is meant: give the parameter a default or use Annotated[Decimal, Inject("SOME_TOKEN")], \
and add provide("SOME_TOKEN", use_value=...) to the providers of AppModule.
- module path: AppModule""",
        {
            "rate: Decimal": 'rate: Annotated[Decimal, Inject("RATE")]',
            "providers=[Prices]": 'providers=[Prices, provide("RATE", use_value=Decimal("1.2"))]',
            "from toril import module": "from typing import Annotated\nfrom toril import Inject, module, provide",
        },
    ),
    "configured_twice": Broken(
        ConflictingModules,
        {
            "module": "QueueModule",
            "key": "'for_root'",
            "differing": ("prefix",),
            "paths": ("AppModule -> OrdersModule -> QueueModule.for_root", "AppModule -> QueueModule.for_root"),
        },
        """\
QueueModule is imported twice with key 'for_root' and other options (prefix), and one of the two would be ignored:
  - {file}:8: prefix='shop' (module path: AppModule -> OrdersModule -> QueueModule.for_root)
  - {file}:12: prefix='bull' (module path: AppModule -> QueueModule.for_root)
Configure it once: remove one of the two, or give both the same options.""",
        {'QueueModule.for_root(prefix="shop"), ': ""},
    ),
    "unregistered_queue": Broken(
        UnregisteredQueueError,
        {"processor": "EmailProcessor", "queue": "e-mails"},
        "EmailProcessor ({file}:8 in AppModule) processes queue 'e-mails': queue 'e-mails' is not registered; did you mean 'emails'? "
        "If not, add QueueModule.register_queue('e-mails') to the imports.",
        {'@processor("e-mails")': '@processor("emails")'},
    ),
    "queue_without_a_name": Broken(
        UnresolvedDependency,
        {"consumer": "EmailService", "hints": ('queues are injected by name: Annotated[Queue, InjectQueue("emails")].',)},
        """\
can't resolve dependencies of EmailService (?) ({file}:8). Please make sure that the argument 'emails: Queue' at index [0] \
is available in the AppModule context.
- queues are injected by name: Annotated[Queue, InjectQueue("emails")].
- module path: AppModule""",
        {
            "emails: Queue": 'emails: Annotated[Queue, InjectQueue("emails")]',
            "from toril import": "from typing import Annotated\nfrom toril import InjectQueue,",
        },
    ),
    "alias_of_nothing": Broken(
        UnresolvedDependency,
        {"consumer": "alias Notifier", "parameters": ("use_existing: SmsNotifier",)},
        """\
can't resolve dependencies of alias Notifier (?) ({file}:23). Please make sure that the argument 'use_existing: SmsNotifier' at index [0] \
is available in the AppModule context.
- no module provides SmsNotifier: add SmsNotifier to the providers of AppModule, or to those of a module that AppModule imports and that \
exports SmsNotifier.
- module path: AppModule""",
        {"providers=[Alarm,": "providers=[Alarm, SmsNotifier,"},
    ),
    "wrong_type_argument": Broken(
        UnresolvedDependency,
        {"consumer": "OrderService", "parameters": ("orders: Repository[Order]",)},
        """\
can't resolve dependencies of OrderService (?) ({file}:21). Please make sure that the argument 'orders: Repository[Order]' at index [0] \
is available in the AppModule context.
- Repository[User] is provided, which is another token than Repository[Order]: add Repository[Order] to the providers of AppModule, \
or change the argument to `orders: Repository[User]`.
- module path: AppModule""",
        {"providers=[Repository[User],": "providers=[Repository[User], Repository[Order],"},
    ),
    "protocol_as_provider": Broken(
        InvalidProvider,
        {"provider": "Storage", "module": "AppModule", "reason": "Storage is a Protocol"},
        """\
provider Storage in AppModule ({file}:10): Storage is a Protocol. Say what implements it: provide(Storage, use_class=...).
- module path: AppModule""",
        {"providers=[Storage,": "providers=[provide(Storage, use_class=DiskStorage),", "import module": "import module, provide"},
    ),
    "export_of_an_import": Broken(
        UnknownExport,
        {"module": "CoreModule", "export": "Clock", "hints": ("Clock comes from the imported ClockModule: export ClockModule instead.",)},
        """\
CoreModule ({file}:15) exports Clock, but it is neither one of its providers nor one of its imported modules.
- Clock comes from the imported ClockModule: export ClockModule instead.
- module path: AppModule -> CoreModule""",
        {"imports=[ClockModule], exports=[Clock]": "imports=[ClockModule], exports=[ClockModule]"},
    ),
    "imported_for_the_type_checker": Broken(
        UnreadableAnnotation,
        {"consumer": "Prices", "parameter": "rate", "index": 0, "annotation": "Decimal"},
        """\
can't read the argument 'rate: Decimal' at index [0] of Prices ({file}:13): the name 'Decimal' can't be found at run time. \
Import Decimal for real, not under TYPE_CHECKING; if it is defined inside a function, define it above the decorator, and put @injectable() \
on the class.
- module path: AppModule""",
        {
            "if TYPE_CHECKING:\n    from": "from",
            "providers=[Prices]": 'providers=[Prices, provide(Decimal, use_value=Decimal("1.2"))]',
            "import module": "import module, provide",
        },
    ),
}


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Reads the text of a file as a user's module, and builds its graph."""
    monkeypatch.chdir(tmp_path)
    name = f"broken_{request.node.callspec.id}"

    def build(text: str) -> Graph:
        file = tmp_path / "app.py"
        file.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return graph_of(module.AppModule)

    yield build
    del sys.modules[name]


@pytest.mark.parametrize("name", BROKEN)
def test_a_typical_mistake_is_told_so_that_its_repair_can_be_read_off(name: str, graph: Any) -> None:  # noqa: ANN401
    text, broken = (FOLDER / f"{name}.py").read_text(encoding="utf-8"), BROKEN[name]
    with pytest.raises(GraphErrors) as caught:
        graph(text)
    (error,) = caught.value.errors
    assert type(error) is broken.kind
    assert {field: getattr(error, field) for field in broken.fields} == broken.fields
    assert str(error) == broken.text.replace("{file}", "app.py")


@pytest.mark.parametrize("name", BROKEN)
def test_the_repair_that_the_message_names_repairs_it(name: str, graph: Any) -> None:  # noqa: ANN401
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    for written, instead in BROKEN[name].repair.items():
        assert text.count(written) == 1
        text = text.replace(written, instead)
    assert graph(text).order


def test_each_file_is_one_of_them() -> None:
    assert {file.stem for file in FOLDER.glob("*.py")} == set(BROKEN)
