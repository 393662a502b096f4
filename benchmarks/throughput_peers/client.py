"""What the clients of all peers do: read their options, wait for the server, take turns."""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.throughput_turns import OpenStream, Tally, Turn, read_frames, run_streams, take_turns

PATIENCE_S = 120.0  # for the server to answer its first frame


async def serve_turns(open_stream: Callable[[int], Awaitable[OpenStream]]) -> None:
    """Takes turns with streams that `open_stream` opens to a port, once the server there answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", required=True, type=Path, help="folder of encoded frames")
    parser.add_argument("--port", required=True, type=int, help="of the server")
    options = parser.parse_args()
    frames = read_frames(options.frames)
    ends_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            async with asyncio.timeout(PATIENCE_S):
                stream = await open_stream(options.port)
                await stream.send(frames[0], 0)
                answer = await stream.receive()
                await stream.close()
            break
        except Exception:  # each library has its own for a server that is not up yet
            if time.monotonic() > ends_at:
                raise
            await asyncio.sleep(0.5)

    async def run(turn: Turn, tally: Tally) -> None:
        streams = [await open_stream(options.port) for _ in range(turn.streams)]
        await run_streams(streams, frames, tally)

    await take_turns(run, answer.labels)
