"""`python -m tests.scenarios NAME`: sets a situation up, says where it is, and keeps it until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from tests.scenarios.situations import SITUATIONS
from tests.scenarios.stage import PREFIX, stage


async def main(name: str) -> None:
    situation = SITUATIONS[name]
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with tempfile.TemporaryDirectory(prefix="toril-scenario-") as folder:
        async with stage(Path(folder), **situation.server) as place:
            print(f"setting up {name} …", file=sys.stderr)
            await situation.set_up(place)
            print(f"“{situation.call}”\n", file=sys.stderr)
            print(f"export REDIS_URL={place.own.url} TORIL_PREFIX={PREFIX}", flush=True)
            print("\nThe application is tests.scenarios.application:AppModule. Ctrl-C ends it all.", file=sys.stderr)
            await stopped.wait()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SITUATIONS:
        sys.exit(f"usage: python -m tests.scenarios NAME\nnames: {', '.join(SITUATIONS)}")
    asyncio.run(main(sys.argv[1]))
