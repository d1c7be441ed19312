"""What tests of an application need: a testing module, a clock that stands still, waiting without sleeping.

The pytest plugin `toril.testing.plugin` is on as soon as the library is installed.
"""

from toril.testing.clock import FakeClock
from toril.testing.eventually import eventually
from toril.testing.module import Test, TestingModule, TestingModuleBuilder

__all__ = ["FakeClock", "Test", "TestingModule", "TestingModuleBuilder", "eventually"]
