"""What tests of an application need: a testing module, a clock that stands still, waiting without sleeping.

The pytest plugin `toril.testing.plugin` is on as soon as the library is installed.
"""

from toril.testing.builder import Test, TestingModuleBuilder
from toril.testing.clock import FakeClock
from toril.testing.errors import LeakError, NeverEndsError, NotEnteredError, StillBusyError, TestServerError
from toril.testing.eventually import eventually
from toril.testing.module import TestingModule
from toril.testing.recording import QueueSpy, RecordedJob, spy_on

__all__ = [
    "FakeClock",
    "LeakError",
    "NeverEndsError",
    "NotEnteredError",
    "QueueSpy",
    "RecordedJob",
    "StillBusyError",
    "Test",
    "TestServerError",
    "TestingModule",
    "TestingModuleBuilder",
    "eventually",
    "spy_on",
]
