"""The tokens under which queues, their server and the clock are found in the container."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from toril.clock import Clock
from toril.di import Inject, Token
from toril.queues.flows import FlowProducer
from toril.queues.options import QueueOptions
from toril.queues.queue import Queue
from toril.spelling import near
from toril.wire.connection import Server

_A_FEW: Final = 10
"""As many queues as a message lists."""


class QueueToken(Token[Queue[Any, Any]]):
    """Stands for the queue of this name. Two tokens of one name are equal: a queue is found by its name, wherever it is registered."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QueueToken) and self.token_name == other.token_name

    def __hash__(self) -> int:
        return hash((QueueToken, self.token_name))

    def unresolved_hint(self, tokens: Collection[object]) -> str | None:
        """What to do when no module registers it."""
        return queue_hint(self.token_name, tokens)


class QueueOptionsToken(Token[QueueOptions]):
    """Stands for the options with which one queue was registered."""

    def __init__(self, queue: str) -> None:
        super().__init__(f"options of queue {queue}")


class FlowProducerToken(Token[FlowProducer]):
    """Stands for the flow producer of this name; two tokens of one name are equal."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FlowProducerToken) and self.token_name == other.token_name

    def __hash__(self) -> int:
        return hash((FlowProducerToken, self.token_name))

    def unresolved_hint(self, tokens: Collection[object]) -> str | None:
        """What to do when no module registers it."""
        names = [token.token_name for token in tokens if isinstance(token, FlowProducerToken)]
        if self.token_name in names:
            return None
        close = near(self.token_name, names)
        if close:
            return f"flow producer {self.token_name!r} is not registered; did you mean {' or '.join(map(repr, close))}?"
        fix = f"add QueueModule.register_flow_producer({self.token_name!r}) to the imports."
        return f"flow producer {self.token_name!r} is not registered: {fix}"


class InjectFlowProducer(Inject):
    """Asks for a registered flow producer: `flows: Annotated[FlowProducer, InjectFlowProducer("flows")]`."""

    def __init__(self, name: str = "flows") -> None:
        super().__init__(FlowProducerToken(name))


class InjectQueue(Inject):
    """Asks for a registered queue: `emails: Annotated[Queue, InjectQueue("emails")]`."""

    def __init__(self, name: str) -> None:
        super().__init__(QueueToken(name))


def queue_hint(name: str, tokens: Collection[object]) -> str | None:
    """What the author of a queue's name that nobody registers may have meant; None where it is registered somewhere."""
    registered = [token.token_name for token in tokens if isinstance(token, QueueToken)]
    if name in registered:
        return None
    close = near(name, registered)
    fix = f"add QueueModule.register_queue({name!r}) to the imports."
    if close:
        return f"queue {name!r} is not registered; did you mean {' or '.join(map(repr, close))}? If not, {fix}"
    return f"queue {name!r} is not registered: {fix} {_registered(registered)}"


def queue_adviser(token: object, tokens: Collection[object]) -> str | None:
    """A hint for a parameter whose type is `Queue`, without a name."""
    if getattr(token, "__origin__", token) is not Queue:
        return None
    names = [each.token_name for each in tokens if isinstance(each, QueueToken)]
    if len(names) == 1:
        return f'queues are injected by name: Annotated[Queue, InjectQueue("{names[0]}")].'
    fix = "" if names else ' Add QueueModule.register_queue("name") to the imports of a module.'
    return f'queues are injected by name: Annotated[Queue, InjectQueue("name")]. {_registered(names)}{fix}'


def _registered(names: Sequence[str]) -> str:
    """A sentence with the queues there are, or the first of them."""
    if not names:
        return "No queue is registered so far."
    more = f" and {len(names) - _A_FEW} more" if len(names) > _A_FEW else ""
    return f"Registered so far: {', '.join(map(repr, names[:_A_FEW]))}{more}."


SERVER: Final = Token[Server]("SERVER")
"""The server that all queues of an application share."""

CLOCK: Final = Token[Clock]("CLOCK")
"""The time of an application; a test overrides it with its `FakeClock`."""
