"""Loads Ray Serve through its gRPC proxy."""

import asyncio
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

from benchmarks.throughput_peers.client import serve_turns
from benchmarks.throughput_peers.ray_protocol import METHOD, SERVICE
from benchmarks.throughput_turns import Answer


class Stream:
    """A call with streams both ways."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Opens the call."""
        self._channel = channel
        multicallable: Any = channel.stream_stream(  # types of messages are not known to it
            f"/{SERVICE}/{METHOD}",
            request_serializer=BytesValue.SerializeToString,
            response_deserializer=BytesValue.FromString,
        )
        self._call = multicallable(metadata=(("application", METHOD),))

    async def send(self, frame: bytes, number: int) -> None:
        """Sends a frame."""
        del number
        await self._call.write(BytesValue(value=frame))

    async def receive(self) -> Answer:
        """Waits for the next answer."""
        answer = await self._call.read()
        if not isinstance(answer, BytesValue):
            raise RuntimeError("Ray Serve ended the stream")
        return Answer(answer.value)

    async def close(self) -> None:
        """Ends the call."""
        await self._call.done_writing()
        await self._call.read()
        await self._channel.close()


async def open_stream(port: int) -> Stream:
    """A stream over a connection of its own."""
    return Stream(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))


if __name__ == "__main__":
    asyncio.run(serve_turns(open_stream))
