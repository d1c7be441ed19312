"""What a test replaces in a module graph before it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from toril.di.module import DynamicModule
from toril.di.providers import Provider
from toril.di.tokens import ForwardRef


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Replacements, applied to the graph: the replaced provider's own dependencies need not exist, nothing of it is built.

    Args:
        providers: made with `provide(...)`; each takes the place of its token in **every** module that provides it.
        modules: a module class (or one `DynamicModule`) to what is imported in its place.
        mocker: called with each token that is asked for and provided nowhere; what it returns is injected, unless it is None.

    A token or module that the graph doesn't have is an `UnknownOverride`.
    """

    providers: Sequence[Provider] = ()
    modules: Mapping[type | DynamicModule, type | DynamicModule | ForwardRef] = field(default_factory=dict[type | DynamicModule, type])
    mocker: Callable[[object], object] | None = None


NO_OVERRIDES = Overrides()
