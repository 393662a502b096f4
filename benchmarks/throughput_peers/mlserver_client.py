"""Loads MLServer over ModelStreamInfer, with the stubs that come with it."""

import asyncio
from typing import Any

import grpc
from mlserver.grpc import dataplane_pb2, dataplane_pb2_grpc

from benchmarks.throughput_peers.client import serve_turns
from benchmarks.throughput_turns import Answer


class Stream:
    """A call of ModelStreamInfer."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Opens the call."""
        self._channel = channel
        self._call: Any = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()  # without types

    async def send(self, frame: bytes, number: int) -> None:
        """Sends a frame."""
        tensor = dataplane_pb2.ModelInferRequest.InferInputTensor(name="frame", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(frame)
        await self._call.write(dataplane_pb2.ModelInferRequest(model_name="per-frame", id=str(number), inputs=[tensor]))

    async def receive(self) -> Answer:
        """Waits for the next answer."""
        response = await self._call.read()
        return Answer(response.outputs[0].contents.bytes_contents[0])

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
