"""What a process of an application does: only add jobs, run them, look after schedules."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal, TypeAlias, cast

from toril.errors import InvalidOptionError

Role: TypeAlias = Literal["producer", "worker", "scheduler"]
"""`producer` only adds jobs; `worker` runs those of the processors' queues; `scheduler` keeps the schedules and runs their jobs."""

ROLES: Final[tuple[Role, ...]] = ("producer", "worker", "scheduler")


def check_roles(roles: Collection[str] | None) -> frozenset[Role]:
    """These roles, or all of them for None.

    Raises:
        InvalidOptionError: a role that doesn't exist, or none at all.
    """
    if roles is None:
        return frozenset(ROLES)
    given = (roles,) if isinstance(roles, str) else tuple(roles)
    for role in given:
        if role not in ROLES:
            raise InvalidOptionError("roles", role, f"there is no such role; there are {', '.join(ROLES)}")
    if not given:
        raise InvalidOptionError("roles", given, f"name at least one of {', '.join(ROLES)}, or leave it out for all")
    return frozenset(cast("tuple[Role, ...]", given))
