"""The lanes: each sends turn after turn, and a turn first finishes what is gathered, then claims what fits.

    gathered outcomes ─┐                    ┌─► job tasks ─► gathered outcomes
                       ├─► lane 0: turn ────┤
    free slots ────────┤                    └─► nothing there ─► doorbell.sleep()
                       └─► lane 1: turn …     (while lane 0 waits for its reply, this process works and lane 1 sends)

- A turn starts as soon as a lane is free and there is something to finish or a slot to fill; what comes meanwhile is gathered
  for the next one. So a lone job is never held back, and a busy worker's batches grow by themselves.
- What a turn asks for is reserved before it is sent (`slots.py`), so two lanes never claim for the same slot.
- An outcome leaves the gathered list when its turn is sent. A turn without an answer is sent again unchanged, on a new
  connection, until it is answered: the server knows it by its sequence number and does nothing twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Final, Protocol

from toril.clock import Clock, Timer, real_sleep
from toril.errors import ClaimObstructedError, DamagedKeyError, ServerError
from toril.telemetry.logs import get_logger
from toril.wire import replies
from toril.wire.codec import JobRecord
from toril.wire.commands import QueueCommands
from toril.wire.connection import Connection, backoff_ms
from toril.wire.endings import Ending
from toril.wire.turns import HEEDS_ANY_LIMIT, ClaimState, TurnReply, TurnRequest
from toril.worker.health import Health
from toril.worker.missing import MissingJobs
from toril.worker.options import WorkerOptions
from toril.worker.slots import Reservation, Slots
from toril.worker.waiting import Doorbell
from toril.worker.window import Window

log = get_logger(__name__)

LANES: Final = 2
BATCH: Final = 50
"""How many jobs one turn finishes, and how many it claims, at most: about 1 ms of the server's time."""

BATCH_BYTES: Final = 1024 * 1024
"""After so many bytes of results and reasons the other outcomes go with the next turn: a script of 100 MB holds the server for 0.3 s."""

FULL_NAMES_POLL_MS: Final = 100
"""Jobs wait whose names are full here, so their ring means nothing to us; others may have come since."""

FULL_NAMES_POLLS_FROM_START: Final = 10
"""Every so many of these polls start over from the front: others take jobs from there, and what moved up was never looked at."""

LONGEST_LIMIT_PAUSE_MS: Final = 30_000
"""How long a limited worker sleeps at most (wire 3.14), whatever is left of the limit."""

CLAIM_FAILED_PAUSE_MS: Final = 1_000

NOTHING: Final = Reservation(0, ())

GONE: Final = frozenset({replies.MISSING_JOB, replies.MISSING_LOCK, replies.LOCK_MISMATCH})
"""The refusals that a second try gets for an outcome that was written."""


class Gathered(Protocol):
    """An outcome on its way to the server."""

    @property
    def ending(self) -> Ending: ...

    def written(self, code: int, detail: int | bytes) -> None:
        """Called with the server's code (`TurnReply.codes`), and what else it says of that, or 0."""
        ...

    def dropped(self, error: Exception) -> None:
        """Called instead if the server can't process it at all."""
        ...


@dataclass(slots=True)
class _Alone:
    """An outcome that goes by itself, since the turn that it was part of has stopped half-way."""

    one: Gathered
    may_be_written: bool
    is_culprit: bool = False

    @property
    def ending(self) -> Ending:
        return self.one.ending

    def written(self, code: int, detail: int | bytes) -> None:
        self.one.written(0 if self.may_be_written and code in GONE else code, detail)

    def dropped(self, error: Exception) -> None:
        self.is_culprit = True
        self.one.dropped(error)


@dataclass(slots=True)
class Lane:
    """One lane's own connection, and how many turns it has sent."""

    name: str
    connection: Connection
    sequence: int = 0


class Lanes:
    """All lanes of one worker, and what they share.

    Args:
        start: called for each claimed job, with its lock token.
        turn_ended: called after each turn.
        drained: called when nothing waits any more, after jobs did.
        missing: hears of ids without a job.
    """

    def __init__(
        self,
        commands: QueueCommands,
        lanes: list[Lane],
        slots: Slots,
        doorbell: Doorbell,
        health: Health,
        clock: Clock,
        *,
        options: WorkerOptions,
        start: Callable[[str, JobRecord], None],
        turn_ended: Callable[[], None],
        drained: Callable[[], None],
        missing: MissingJobs,
    ) -> None:
        self._commands = commands
        self._lanes = lanes
        self._slots = slots
        self._doorbell = doorbell
        self._health = health
        self._clock = clock
        self._options = options
        self._limit = (options.limiter.max, options.limiter.duration_ms) if options.limiter is not None else (0, 0)
        self._start = start
        self._turn_ended = turn_ended
        self._drained = drained
        self._missing = missing
        self._has_claimed = False
        self._holds = 0
        self._limit_until_ms = 0
        self._state = ClaimState.SATISFIED
        self._gathered: deque[Gathered] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._under_way = 0
        self._asked_s = 0.0
        self._claims_under_way = 0
        self._quiet = asyncio.Event()
        self._is_claiming = True
        self._may_claim = True
        self.on_round_trip: Callable[[float], None] | None = None
        """Called with the seconds that each turn took."""
        self._rings = 0
        self._window = Window()
        self._polls = 0
        self._timer: Timer | None = None
        self._poll_timer: Timer | None = None

    # ── from outside ──────────────────────────────────────────────────────────────────────────────────────────

    def gather(self, gathered: Gathered) -> None:
        """Write this outcome with the next turn."""
        self._gathered.append(gathered)
        self._wake_a_lane()

    def look_again(self) -> None:
        """There may be something to claim now."""
        self._rings += 1
        self._may_claim = True
        self._window.go_on()
        self._wake_a_lane()

    @property
    def can_claim(self) -> bool:
        """Whether a slot is free that no turn under way has asked for."""
        return self._is_claiming and self._holds == 0 and self._slots.free > 0

    @property
    def asked_s(self) -> float | None:
        """Since when turns have been under way without a pause, by the monotonic clock; None: none is."""
        return self._asked_s if self._under_way else None

    @property
    def silent_for_ms(self) -> int | None:
        """How long it leaves the server alone at most, as it looks for jobs now; None: until a slot gets free."""
        if not self.can_claim or self._state is ClaimState.ONLY_FULL_NAMES:
            return None
        return LONGEST_LIMIT_PAUSE_MS if self._state is ClaimState.LIMITED else self._options.drain_delay_ms

    def hold(self) -> None:
        """Claim nothing until `release`: a handler has met a rate limit, and the server is yet to be told."""
        self._holds += 1

    def release(self, limit_ms: int) -> None:
        """The server knows: until what is left of the limit has passed, this worker heeds it even if it has none of its own."""
        self._holds -= 1
        if limit_ms > 0:
            self._limit_until_ms = max(self._limit_until_ms, self._clock.now_ms() + limit_ms)
            self._state = ClaimState.LIMITED
            self._limited(limit_ms)
        else:
            self.look_again()

    def _limited(self, limit_ms: int) -> None:
        """Sleep, but not for long: somebody may lift the limit meanwhile, and only claims promote delayed jobs that are due."""
        self._may_claim = False
        self._look_again_in(min(limit_ms, LONGEST_LIMIT_PAUSE_MS))

    def stop_claiming(self) -> None:
        """From now on only write outcomes."""
        self._is_claiming = False
        for timer in (self._timer, self._poll_timer):
            if timer is not None:
                timer.cancel()

    @property
    def unwritten(self) -> int:
        """How many outcomes the server has not confirmed yet."""
        return len(self._gathered) + self._under_way

    async def wait_until_quiet(self) -> None:
        """Wait until nothing is gathered and no turn is under way."""
        while self._gathered or self._under_way:
            self._quiet.clear()
            await self._quiet.wait()

    @property
    def is_waiting(self) -> bool:
        """Whether it has nothing to do now: it neither looks for jobs nor writes outcomes. Jobs may run."""
        return self._under_way == 0 and not self._has_work()

    @property
    def found_nothing(self) -> bool:
        """Whether the last look at the queue found nothing to claim now, nothing runs, and nothing waits to be written."""
        may_claim = self._may_claim and self._holds == 0
        if may_claim or self._state not in (ClaimState.EMPTY, ClaimState.BLOCKED, ClaimState.LIMITED):
            return False
        return self._slots.running == 0 and not self._gathered and self._under_way == 0

    async def run_forever(self, lane: Lane) -> None:
        """Send turn after turn until cancelled."""
        while True:
            while not self._has_work():
                turn = asyncio.get_running_loop().create_future()
                self._idle.append(turn)
                await turn
            await self._take_turn(lane)

    # ── one turn ──────────────────────────────────────────────────────────────────────────────────────────────

    def _has_work(self) -> bool:
        # Only one turn at a time merely looks for jobs: a second one would find what the first one leaves, mostly nothing.
        return bool(self._gathered) or (self.can_claim and self._may_claim and self._claims_under_way == 0)

    def _wake_a_lane(self) -> None:
        while self._idle and self._has_work():
            turn = self._idle.pop()
            if not turn.done():
                turn.set_result(None)
                return

    async def _take_turn(self, lane: Lane) -> None:
        # No more than this lane's share of the slots: with all of them the other lane would have nothing to do meanwhile.
        most = min(BATCH, -(-self._slots.total // LANES))
        batch = self._next_batch(most)
        reservation = self._slots.reserve(most) if self.can_claim else NOTHING
        await self._turn(lane, batch, reservation)
        self._wake_a_lane()
        if not self._gathered and self._under_way == 0:
            self._quiet.set()
        if self._has_claimed and self._state is ClaimState.EMPTY and self.found_nothing:
            self._has_claimed = False
            self._drained()
        self._turn_ended()

    def _next_batch(self, most: int) -> list[Gathered]:
        batch: list[Gathered] = []
        size = 0
        while self._gathered and len(batch) < most and size < BATCH_BYTES:
            one = self._gathered.popleft()
            batch.append(one)
            for part in one.ending:
                if type(part) is bytes:
                    size += len(part)
        return batch

    async def _turn(self, lane: Lane, batch: list[Gathered], reservation: Reservation) -> None:
        lane.sequence += 1
        look = self._window.look(reservation.free_by_name)
        now_ms = self._clock.now_ms()
        request = TurnRequest(
            now_ms=now_ms,
            token=f"{lane.name}:{lane.sequence}",
            lock_ms=self._options.lock_ms,
            lane=lane.name,
            sequence=lane.sequence,
            endings=[one.ending for one in batch],
            claims=reservation.claims,
            worker_name=self._options.name or "",
            free_by_name=look.free_by_name,
            positions=look.start,
            limit_max=self._limit[0] or (HEEDS_ANY_LIMIT if now_ms < self._limit_until_ms else 0),
            limit_ms=self._limit[1],
            metrics_points=self._options.metrics_points,
        )
        rings, names_freed = self._rings, self._slots.name_freed
        if self._under_way == 0:
            self._asked_s = monotonic()
        self._under_way += 1
        self._claims_under_way += reservation.claims > 0
        try:
            reply = await self._send(lane, request)
        except ServerError as error:
            self._slots.settle(reservation, [])
            await self._after_script_error(lane, batch, reservation, error)
            return
        except BaseException:
            self._slots.settle(reservation, [])
            raise
        finally:
            self._under_way -= 1
            self._claims_under_way -= reservation.claims > 0
        self._missing.dropped(reply.dropped, reply.dropped_ids)
        names = [record.name for _, record in reply.claimed]
        self._slots.settle(reservation, names)
        for token, record in reply.claimed:
            self._has_claimed = True
            self._start(token, record)
        for place, (one, code) in enumerate(zip(batch, reply.codes, strict=True)):
            one.written(code, reply.details.get(place, 0))
        if reply.state is ClaimState.OBSTRUCTED:
            self._claim_failed(ClaimObstructedError(self._commands.keys.queue, reply.obstacle))
        elif reservation.claims > 0:
            self._health.works("claim")
            state = self._window.learn(look, names, reply.state, reply.positions)
            if self._window.has_ends and self._poll_timer is None and self._is_claiming:
                self._poll_timer = self._clock.call_later(FULL_NAMES_POLL_MS, self._poll)
            self._after_claim(state, reply.value, nothing_changed=rings == self._rings and names_freed == self._slots.name_freed)

    async def _send(self, lane: Lane, request: TurnRequest) -> TurnReply:
        """Send until answered, always the same: the server does a turn once. Raises what has stopped the
        script, and, if nothing is lost by it, what has kept it from beginning."""
        for pause_ms in backoff_ms():
            sent = 0.0 if self.on_round_trip is None else perf_counter()
            try:
                reply = await self._commands.turn(lane.connection, request)
            except ServerError as error:
                if error.stopped_script or (isinstance(error, DamagedKeyError) and not request.endings):
                    raise
                self._health.failed(lane.name, error)  # away, damaged, read-only after a failover, out of memory…: that passes
            else:
                self._health.works(lane.name)
                if self.on_round_trip is not None:
                    self.on_round_trip(perf_counter() - sent)
                return reply
            await real_sleep(pause_ms)
        raise AssertionError("unreachable: backoff_ms never ends")

    async def _after_script_error(self, lane: Lane, batch: list[Gathered], reservation: Reservation, error: ServerError) -> None:
        """A key of a wrong type, say, stops the whole script. So that one job can't hold up the others, each goes alone."""
        if len(batch) + (reservation.claims > 0) > 1:
            may_be_written = True  # what the script had done when it stopped stays done: all that comes before the culprit
            for one in batch:
                may_be_written = await self._goes_alone(lane, one, may_be_written=may_be_written) and may_be_written
        elif batch:
            batch[0].dropped(error)
        else:  # an outcome isn't to blame: nothing can be claimed
            self._claim_failed(error)

    def _claim_failed(self, error: Exception) -> None:
        self._health.failed("claim", error)
        self._may_claim = False
        self._look_again_in(CLAIM_FAILED_PAUSE_MS)

    async def _goes_alone(self, lane: Lane, one: Gathered, *, may_be_written: bool) -> bool:
        """Write one outcome, maybe for the second time; False if it is what stops the script."""
        alone = _Alone(one, may_be_written)
        await self._turn(lane, [alone], NOTHING)
        return not alone.is_culprit

    # ── what a claim tells ────────────────────────────────────────────────────────────────────────────────────

    def _after_claim(self, state: ClaimState, value: int, *, nothing_changed: bool) -> None:
        """Decide when to look next. `nothing_changed`: nobody rang and no name got free while the turn was under way."""
        self._state = state
        match state:
            case ClaimState.SATISFIED | ClaimState.LOOK_FURTHER:
                self._may_claim = True
            case _ if not nothing_changed:
                self._may_claim = True  # the answer may be older than the ring
            case ClaimState.EMPTY | ClaimState.BLOCKED:
                self._may_claim = False
                self._doorbell.sleep(value if state is ClaimState.EMPTY else 0)
            case ClaimState.LIMITED:
                self._limited(value)
            case ClaimState.ONLY_FULL_NAMES:
                self._may_claim = False  # until a slot gets free, or the next poll
            case ClaimState.OBSTRUCTED:
                raise AssertionError("unreachable: an obstructed claim has failed")

    def _poll(self) -> None:
        self._poll_timer = None
        self._polls += 1
        if self._polls % FULL_NAMES_POLLS_FROM_START == 0:
            self._window.start_over()
        self.look_again()

    def _look_again_in(self, delay_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(delay_ms, self.look_again)
