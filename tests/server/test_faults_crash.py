"""Workers that are killed, and a server that is restarted: every job still ends, and none runs more often than it must."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.server.crashing_worker import __name__ as _script
from toril.embedded import EmbeddedServer
from toril.embedded.binary import find_binary
from toril.queues.job import Job
from toril.queues.queue import Queue
from toril.testing.eventually import eventually
from toril.wire.connection import Server
from toril.worker.options import WorkerOptions
from toril.worker.worker import Worker

QUICK = WorkerOptions(lock_duration="1s", stalled_interval="100ms", drain_delay="50ms")
