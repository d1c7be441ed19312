"""Who sees what: imports, exports, re-exports, global modules."""

from __future__ import annotations

import pytest

from tests.unit.di.building import app, errors_of, only_error
from toril.di import (
    ApplicationContext,
    DynamicModule,
    InvalidModule,
    InvalidProvider,
    UnknownExport,
    UnresolvedDependency,
    build_graph,
    forward_ref,
    global_module,
    module,
    provide,
)


class Mailer: ...


class Audit: ...


class NeedsMailer:
    def __init__(self, mailer: Mailer) -> None:
        self.mailer = mailer


@module(providers=[Mailer], exports=[Mailer])
class MailModule: ...


@module(providers=[Mailer])
class ClosedMailModule: ...


async def test_row_01_an_exported_provider_is_visible_to_the_importing_module() -> None:
    async with ApplicationContext(build_graph(app(imports=[MailModule], providers=[NeedsMailer]))) as ctx:
        assert ctx.get(NeedsMailer).mailer is ctx.get(Mailer)


def test_row_01_a_provider_that_is_not_exported_stays_inside_its_module() -> None:
    error = only_error(app(imports=[ClosedMailModule], providers=[NeedsMailer]), UnresolvedDependency)
    assert (error.consumer, error.module, error.parameters, error.missing) == ("NeedsMailer", "AppModule", ("mailer: Mailer",), (0,))
    assert error.hints == ("Mailer is provided by ClosedMailModule, which does not export it: add it to the exports of ClosedMailModule.",)


def test_a_provider_of_a_module_that_is_not_imported_here_is_offered_with_the_import() -> None:
    @module(imports=[MailModule])
    class Other: ...

    error = only_error(app(imports=[Other], providers=[NeedsMailer]), UnresolvedDependency)
    assert error.hints == ("Mailer is exported by MailModule: add MailModule to the imports of AppModule.",)


def test_a_hidden_provider_of_a_module_that_is_not_imported_needs_both_steps() -> None:
    @module(imports=[ClosedMailModule])
    class Other: ...

    error = only_error(app(imports=[Other], providers=[NeedsMailer]), UnresolvedDependency)
    assert error.hints == (
        (
            "Mailer is provided by ClosedMailModule, which does not export it: add it to the exports of ClosedMailModule, "
            "and ClosedMailModule to the imports of AppModule."
        ),
    )


def test_what_the_importing_module_provides_is_not_visible_in_the_imported_one() -> None:
    @module(providers=[NeedsMailer])
    class Inner: ...

    error = only_error(app(imports=[Inner], providers=[Mailer]), UnresolvedDependency)
    assert (error.module, error.path) == ("Inner", "AppModule -> Inner")


async def test_row_03_exports_are_passed_on_through_any_number_of_modules() -> None:
    @module(imports=[MailModule], exports=[MailModule])
    class First: ...

    @module(imports=[First], exports=[First])
    class Second: ...

    async with ApplicationContext(build_graph(app(imports=[Second], providers=[NeedsMailer]))) as ctx:
        assert ctx.get(NeedsMailer).mailer is ctx.get(Mailer)


def test_an_import_is_not_passed_on_by_itself() -> None:
    @module(imports=[MailModule])
    class First: ...

    assert only_error(app(imports=[First], providers=[NeedsMailer]), UnresolvedDependency).consumer == "NeedsMailer"


async def test_modules_may_pass_on_each_other() -> None:
    @module(providers=[Audit], imports=[forward_ref(lambda: Right)], exports=[Audit, forward_ref(lambda: Right)])
    class Left: ...

    @module(providers=[Mailer], imports=[Left], exports=[Mailer, Left])
    class Right: ...

    class Both:
        def __init__(self, mailer: Mailer, audit: Audit) -> None:
            self.mailer, self.audit = mailer, audit

    async with ApplicationContext(build_graph(app(imports=[Left], providers=[Both]))) as ctx:
        assert ctx.get(Both).mailer is ctx.get(Mailer)


async def test_row_03_own_providers_win_over_imported_ones() -> None:
    mine = Mailer()
    root = app(imports=[MailModule], providers=[provide(Mailer, use_value=mine), NeedsMailer])
    async with ApplicationContext(build_graph(root)) as ctx:
        assert ctx.get(NeedsMailer).mailer is mine


async def test_row_03_the_first_of_two_imports_wins_with_a_warning() -> None:
    @module(providers=[Mailer], exports=[Mailer])
    class OtherMail: ...

    graph = build_graph(app(imports=[MailModule, OtherMail], providers=[NeedsMailer]))
    assert graph.warnings == ["AppModule sees Mailer in several imports: it gets that of MailModule, not that of OtherMail"]
    async with ApplicationContext(graph) as ctx:
        assert ctx.get(NeedsMailer).mailer is ctx.select(MailModule).get(Mailer)


def test_the_same_provider_on_two_ways_is_no_reason_for_a_warning() -> None:
    @module(imports=[MailModule], exports=[MailModule])
    class Again: ...

    assert build_graph(app(imports=[MailModule, Again], providers=[NeedsMailer])).warnings == []


async def test_row_01_a_global_modules_exports_are_visible_everywhere() -> None:
    @global_module
    @module(providers=[Mailer, Audit], exports=[Mailer])
    class Everywhere: ...

    @module(providers=[NeedsMailer])
    class Deep: ...

    async with ApplicationContext(build_graph(app(imports=[Deep, Everywhere]))) as ctx:
        assert ctx.get(NeedsMailer).mailer is ctx.get(Mailer)

    class NeedsAudit:
        def __init__(self, audit: Audit) -> None: ...

    assert only_error(app(imports=[Everywhere], providers=[NeedsAudit]), UnresolvedDependency).missing == (0,)


async def test_row_03_an_import_wins_over_a_global_module() -> None:
    @global_module
    @module(providers=[Mailer], exports=[Mailer])
    class Everywhere: ...

    async with ApplicationContext(build_graph(app(imports=[Everywhere, MailModule], providers=[NeedsMailer]))) as ctx:
        assert ctx.get(NeedsMailer).mailer is ctx.select(Everywhere).get(Mailer)
    graph = build_graph(app(imports=[MailModule, Everywhere], providers=[NeedsMailer]))
    async with ApplicationContext(graph) as ctx:
        assert ctx.get(NeedsMailer).mailer is ctx.select(MailModule).get(Mailer)


async def test_row_04_one_class_in_two_modules_is_two_instances() -> None:
    @module(providers=[Mailer])
    class Other: ...

    async with ApplicationContext(build_graph(app(imports=[Other, ClosedMailModule]))) as ctx:
        one, two = ctx.get_all(Mailer)
        assert one is not two
        assert {id(ctx.select(Other).get(Mailer)), id(ctx.select(ClosedMailModule).get(Mailer))} == {id(one), id(two)}


async def test_a_module_imported_twice_exists_once() -> None:
    @module(imports=[MailModule], exports=[MailModule])
    class Other: ...

    async with ApplicationContext(build_graph(app(imports=[Other, MailModule]))) as ctx:
        assert len(ctx.get_all(Mailer)) == 1


async def test_a_modules_class_has_dependencies_like_any_provider() -> None:
    class Root:
        def __init__(self, mailer: Mailer) -> None:
            self.mailer = mailer

    decorated = module(imports=[MailModule])(Root)
    async with ApplicationContext(build_graph(decorated)) as ctx:
        assert ctx.get(Root).mailer is ctx.get(Mailer)


def test_an_export_must_be_provided_or_imported() -> None:
    error = only_error(app(exports=["zz"], providers=[provide("zzz", use_value=1)]), UnknownExport)
    assert (error.module, error.export, error.hints) == ("AppModule", "'zz'", ("did you mean 'zzz'?",))
    error = only_error(app(exports=["zz"]), UnknownExport)
    assert str(error) == (
        f"AppModule ({error.place}) exports 'zz', but it is neither one of its providers nor one of its imported modules. "
        "Add it to providers or to imports.\n- module path: AppModule"
    )


def test_exporting_what_an_import_provides_is_answered_with_the_module_to_export() -> None:
    error = only_error(app(imports=[MailModule], exports=[Mailer]), UnknownExport)
    assert error.hints == ("Mailer comes from the imported MailModule: export MailModule instead.",)


def test_exporting_a_module_that_is_not_imported_is_answered_with_the_import() -> None:
    error = only_error(app(exports=[MailModule]), UnknownExport)
    assert error.hints == ("MailModule is a module: add it to the imports of AppModule.",)


async def test_an_export_may_be_written_as_the_provider_itself() -> None:
    attempts = provide("ATTEMPTS", use_value=3)

    @module(providers=[attempts], exports=[attempts])
    class Options: ...

    async with ApplicationContext(build_graph(app(imports=[Options], providers=[provide("n", use_existing="ATTEMPTS")]))) as ctx:
        assert ctx.get("n") == 3


async def later_module() -> type:
    return MailModule


@pytest.mark.parametrize(
    ("entry", "name", "reason", "hint"),
    [
        (
            Mailer,
            "Mailer",
            "it is no module",
            "Decorate it with @module(...) (a base class' decorator doesn't count), or put it into providers.",
        ),
        (provide(Mailer, use_value=Mailer()), "provide(Mailer, ...)", "it is a provider", "Put it into providers."),
        (MailModule(), "MailModule", "it is an instance of a module", "Import the class itself."),
        (3, "3", "it is no module but of type int", "Import module classes and DynamicModules."),
        (None, "None", "it is None", "Two files import each other: write forward_ref(lambda: TheModule)."),
    ],
)
def test_what_is_no_module_is_refused_in_imports(entry: object, name: str, reason: str, hint: str) -> None:
    error = only_error(app(imports=[entry]), InvalidModule)
    assert (error.module, error.reason, error.hint) == (f"{name} in the imports of AppModule", reason, hint)


def test_row_15_a_coroutine_in_imports_is_refused_and_closed() -> None:
    error = only_error(app(imports=[later_module()]), InvalidModule)
    assert error.reason == "it is a coroutine, and imports are read synchronously"
    assert error.hint == "Use a method that ends in `_async`, without `await`."


def test_a_module_decorator_is_not_inherited() -> None:
    class Child(MailModule): ...

    assert only_error(app(imports=[Child]), InvalidModule).reason == "it is no module"


def test_a_forward_ref_that_fails_names_the_failure() -> None:
    def fails() -> object:
        raise NameError("name 'Missing' is not defined")

    error = only_error(app(imports=[forward_ref(fails)]), InvalidModule)
    assert (error.reason, error.hint) == ("its callable raised NameError: name 'Missing' is not defined", "Is the name right?")
    assert only_error(app(exports=[forward_ref(fails)]), UnknownExport).hints == (
        "its forward_ref raised NameError: name 'Missing' is not defined",
    )


def test_a_module_in_providers_is_sent_to_imports() -> None:
    error = only_error(app(providers=[MailModule]), InvalidProvider)
    assert (error.reason, error.hint) == ("it is a module", "Put it into imports.")


def test_global_module_below_module_is_refused_at_once() -> None:
    with pytest.raises(InvalidModule) as caught:
        global_module(type("Plain", (), {}))
    assert str(caught.value) == "Plain: @global_module stands on a class that is no module. Put it above @module(...)."


def test_a_thousand_modules_in_a_chain_are_scanned_and_linked() -> None:
    last: type = MailModule
    for number in range(1_000):
        last = module(imports=[last], exports=[last])(type(f"M{number}", (), {}))
    graph = build_graph(app(imports=[last], providers=[NeedsMailer]))
    assert len(graph.nodes) == 1_002


def test_the_root_must_be_a_module() -> None:
    (error,) = errors_of(Mailer)
    assert isinstance(error, InvalidModule)
    assert error.module == "Mailer"


def test_row_13_modules_that_import_each_other_are_scanned_once() -> None:
    @module(imports=[forward_ref(lambda: Second)])
    class First: ...

    @module(imports=[First])
    class Second: ...

    graph = build_graph(app(imports=[First]))
    assert [node.name for node in graph.nodes] == ["AppModule", "First", "Second"]
    assert graph.nodes[2].path == "AppModule -> First -> Second"


def test_a_dynamic_module_is_exported_as_itself_or_by_its_class() -> None:
    dynamic = DynamicModule(MailModule, key="a")
    for export in (dynamic, MailModule):

        @module(imports=[dynamic], exports=[export])
        class Between: ...

        build_graph(app(imports=[Between], providers=[NeedsMailer]))
