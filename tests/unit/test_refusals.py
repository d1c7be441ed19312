"""What a server answers instead of doing a command becomes an error of ours, which names the command and never its arguments."""

from __future__ import annotations

import pickle

import pytest
from redis import exceptions as redis_errors

from toril.errors import CommandFailedError, DamagedKeyError, ServerError, ServerFullError, ServerRefusedError
from toril.wire import scripts
from toril.wire.refusals import Argument, UnknownScriptError, refusal

ADD: tuple[Argument, ...] = ("EVALSHA", scripts.load("add").sha1, 2, "bull:q:", "toril:bull:q:", "hunter2")
GET: tuple[Argument, ...] = ("HSET", "bull:q:7", "data", "hunter2")
IN_SCRIPT = " script: 5d41402abc4b2a76b9719d911017c592, on @user_script:12."


@pytest.mark.parametrize(
    ("error", "args", "kind", "words"),
    [
        (redis_errors.ResponseError("WRONGTYPE Operation against a key"), GET, DamagedKeyError, ("HSET on bull:q:7", "mend or delete")),
        (redis_errors.ResponseError("WRONGTYPE Operation" + IN_SCRIPT), ADD, DamagedKeyError, ("add on bull:q", "mend or delete")),
        (redis_errors.ResponseError("hash value is not an integer"), GET, DamagedKeyError, ("HSET on bull:q:7",)),
        (
            redis_errors.ResponseError("DAMAGED bull:q:id holds a list instead of a string" + IN_SCRIPT),
            ADD,
            DamagedKeyError,
            ("bull:q:id",),
        ),
        (redis_errors.ResponseError("user_script:9: attempt to index a nil" + IN_SCRIPT), ADD, CommandFailedError, ("attempt to index",)),
        (redis_errors.NoPermissionError("User u has no permissions"), GET, ServerRefusedError, ("HSET on bull:q:7", "ACL")),
        (redis_errors.ResponseError("ACL failure in script: User u" + IN_SCRIPT), ADD, ServerRefusedError, ("add on bull:q", "ACL")),
        (redis_errors.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), GET, ServerFullError, ("maxmemory",)),
        (redis_errors.ResponseError("MISCONF it can't save"), GET, ServerRefusedError, ("Nothing was written", "disk")),
        (redis_errors.ResponseError("NOREPLICAS Not enough good replicas"), GET, ServerRefusedError, ("min-replicas-to-write",)),
        (redis_errors.NoScriptError("No matching script"), ADD, UnknownScriptError, ("script",)),
        (
            redis_errors.ResponseError("unknown command 'HSET', with args beginning with: 'bull:q:7' 'hunter2'"),
            GET,
            CommandFailedError,
            ("HSET",),
        ),
    ],
)
def test_a_refusal_names_the_command_and_its_key_the_reason_and_the_fix_and_no_argument(
    error: redis_errors.ResponseError, args: tuple[Argument, ...], kind: type[ServerError], words: tuple[str, ...]
) -> None:
    ours = refusal("host:6379", args, error)
    assert type(ours) is kind
    assert "host:6379" in str(ours)
    assert all(word in str(ours) for word in words)
    assert not any(word in str(ours) for word in ("hunter2", "user_script", "5d41402a"))
    assert str(pickle.loads(pickle.dumps(ours))) == str(ours)


@pytest.mark.parametrize(
    ("text", "stopped"), [("WRONGTYPE" + IN_SCRIPT, True), ("WRONGTYPE", False), ("DAMAGED k holds" + IN_SCRIPT, False)]
)
def test_only_a_script_that_had_begun_to_write_counts_as_stopped(text: str, stopped: bool) -> None:
    assert refusal("host:6379", ADD, redis_errors.ResponseError(text)).stopped_script is stopped
