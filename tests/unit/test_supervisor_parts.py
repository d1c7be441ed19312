from __future__ import annotations

import io
import signal
import subprocess
import sys

import pytest

from toril.cli.merged_output import LONGEST_LINE, MergedOutput
from toril.cli.supervisor import exit_code_for_all, pause_ms


class FullDisk(io.BytesIO):
    def write(self, _data: object) -> int:
        raise OSError(28, "No space left on device")


def test_lines_of_two_processes_are_never_torn() -> None:
    stream = io.BytesIO()
    one, other = MergedOutput(stream), MergedOutput(stream)
    one.write(b"one be")
    other.write(b"other\nTrace")
    one.write(b"gins\nand en")
    other.write(b"back\n")
    one.end()
    one.end()
    assert stream.getvalue() == b"other\none begins\nTraceback\nand en\n"


def test_lines_that_came_together_stay_together() -> None:
    stream = io.BytesIO()
    one, other = MergedOutput(stream), MergedOutput(stream)
    one.write(b"Traceback\n  line\nError\nnext")
    other.write(b"other\n")
    one.write(b"\n")
    assert stream.getvalue() == b"Traceback\n  line\nError\nother\nnext\n"


def test_what_never_ends_its_line_is_not_held_for_ever() -> None:
    stream = io.BytesIO()
    output = MergedOutput(stream)
    output.write(b"." * LONGEST_LINE)
    assert stream.getvalue() == b""
    output.write(b".")
    assert stream.getvalue() == b"." * (LONGEST_LINE + 1) + b"\n"


def test_a_stream_that_takes_nothing_does_not_stop_the_supervisor() -> None:
    output = MergedOutput(FullDisk())
    output.write(b"lost\n")
    output.end()


def test_the_pause_grows_and_has_a_limit() -> None:
    assert [pause_ms(failures) for failures in (0, 1, 2, 3, 8, 1_000)] == [0, 250, 500, 1_000, 30_000, 30_000]


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 4], 4),
        ([4, 1, 0], 1),
        ([0, 3, 1], 3),
        ([0, -signal.SIGTERM, 130], 0),
        ([0, -signal.SIGKILL], 1),
    ],
)
def test_one_exit_code_stands_for_all(codes: list[int], code: int) -> None:
    assert exit_code_for_all(codes) == code


def test_the_supervisor_stays_small() -> None:
    looks = (
        "import sys, toril.cli.supervisor; print([name for name in ('redis', 'pydantic', 'dependency_injector') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", looks], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
