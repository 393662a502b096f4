"""Loads Triton over ModelStreamInfer, with NVIDIA's own client."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton

from benchmarks.throughput_peers.client import serve_turns
from benchmarks.throughput_turns import Answer


class Stream:
    """A call of ModelStreamInfer."""

    def __init__(self, port: int) -> None:
        """Opens the call."""
        self._requests: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._client = triton.InferenceServerClient(f"127.0.0.1:{port}")
        self._answers = self._client.stream_infer(self._feed())
        self._number = 0

    async def send(self, frame: bytes, number: int) -> None:
        """Sends a frame."""
        tensor = triton.InferInput("frame", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([frame], dtype=np.object_))
        self._requests.put_nowait({"model_name": "per-frame", "inputs": [tensor], "request_id": str(number)})

    async def receive(self) -> Answer:
        """Waits for the next answer."""
        result, error = await anext(self._answers)
        if error is not None:
            raise RuntimeError(f"Triton sent an error: {error}")
        if result.get_response().id != str(self._number):
            raise RuntimeError(f"Triton sent answer {result.get_response().id} where {self._number} was due")
        self._number += 1
        return Answer(result.as_numpy("labels").item())

    async def close(self) -> None:
        """Ends the call."""
        self._requests.put_nowait(None)
        async for _ in self._answers:
            pass
        await self._client.close()

    async def _feed(self) -> AsyncIterator[dict[str, Any]]:
        while (request := await self._requests.get()) is not None:
            yield request


async def open_stream(port: int) -> Stream:
    """A stream over a connection of its own."""
    return Stream(port)


if __name__ == "__main__":
    asyncio.run(serve_turns(open_stream))
