"""Loads a flowseg server with streams of encoded frames; a process of its own (`throughput_turns.py`).

With `--echo` it loads a server that answers at once in place of ours: what the clients themselves can do.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import tyro

from benchmarks.throughput_turns import PNG_SIGNATURE, Answer, Tally, Turn, read_frames, run_streams, take_turns
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.generated.flowseg.v1 import segmentation_pb2_grpc

ECHO = PNG_SIGNATURE + bytes(2000)  # for a label map: as long as those of small frames are
PARTS = ("decode", "queue", "key", "step", "encode", "total")


@dataclass(frozen=True)
class Options:
    """Options of the load generator."""

    frames: Path  # folder of encoded frames
    encoding: str = "jpeg"  # jpeg or raw
    width: int = 0  # of raw frames, in pixels
    height: int = 0  # of raw frames, in pixels
    server: str = ""  # HOST:PORT
    echo: bool = False  # load a server in this process that answers at once


class Stream:
    """A call of SegmentStream, as `run_stream` takes it."""

    def __init__(self, stub: Any, config: pb.StreamConfig) -> None:  # Any: grpcio-tools writes no types for stubs
        """Opens the call."""
        self._call = stub.SegmentStream()
        self._config = config

    async def start(self) -> None:
        """Sends the configuration and waits until it is accepted."""
        await self._call.write(pb.SegmentStreamRequest(config=self._config))
        await self._read("started")

    async def send(self, frame: bytes, number: int) -> None:
        """Sends a frame."""
        await self._call.write(pb.SegmentStreamRequest(frame=pb.Frame(sequence=number, data=frame)))

    async def receive(self) -> Answer:
        """Waits for the next result."""
        result = (await self._read("result")).result
        parts = {name: getattr(result.timings, f"{name}_ms") for name in PARTS}
        counts = {"batch_size": result.timings.batch_size, "key_frames": result.provenance.refreshes_key}
        return Answer(result.labels.data, parts | counts)

    async def close(self) -> None:
        """Half-closes and waits for the end of the call."""
        await self._call.done_writing()
        await self._read("summary")

    async def _read(self, body: str) -> pb.SegmentStreamResponse:
        response = await self._call.read()
        if not isinstance(response, pb.SegmentStreamResponse) or response.WhichOneof("body") != body:
            raise RuntimeError(f"the server was to send a {body}, it sent {str(response)[:200]}")
        return response


def stream_config(options: Options, key_frames: str) -> pb.StreamConfig:
    """What a stream asks for: every frame answered, labels as PNG in the frame's size."""
    encoding = pb.FRAME_ENCODING_JPEG if options.encoding == "jpeg" else pb.FRAME_ENCODING_RAW_RGB
    config = pb.StreamConfig(
        format=pb.FrameFormat(encoding=encoding, width=options.width, height=options.height),
        delivery=pb.Delivery(policy=pb.DELIVERY_POLICY_BLOCK),
    )
    if key_frames == "adaptive":
        config.key_frames.adaptive.SetInParent()
    else:
        config.key_frames.fixed.interval = int(key_frames)
    return config


class Echo(segmentation_pb2_grpc.SegmentationServiceServicer):
    """Answers each frame at once, with a message of a usual size."""

    async def SegmentStream(  # noqa: N802  # the schema's name
        self, requests: AsyncIterator[pb.SegmentStreamRequest], context: Any
    ) -> AsyncIterator[pb.SegmentStreamResponse]:
        """Has no model."""
        del context
        async for request in requests:
            if request.HasField("config"):
                yield pb.SegmentStreamResponse(started=pb.StreamStarted())
            else:
                result = pb.FrameResult(sequence=request.frame.sequence, labels=pb.PixelMap(data=ECHO))
                yield pb.SegmentStreamResponse(result=result)
        yield pb.SegmentStreamResponse(summary=pb.StreamSummary())


async def load(options: Options) -> None:
    """Takes turns."""
    frames = read_frames(options.frames)
    address = options.server
    if options.echo:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        # grpcio-tools writes no types for stubs
        segmentation_pb2_grpc.add_SegmentationServiceServicer_to_server(Echo(), server)  # type: ignore[no-untyped-call]
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
    async with grpc.aio.insecure_channel(
        address, options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    ) as channel:
        stub = segmentation_pb2_grpc.SegmentationServiceStub(channel)  # type: ignore[no-untyped-call]  # as above

        async def run(turn: Turn, tally: Tally) -> None:
            streams = [Stream(stub, stream_config(options, turn.key_frames)) for _ in range(turn.streams)]
            await asyncio.gather(*(stream.start() for stream in streams))
            await run_streams(streams, frames, tally)

        await take_turns(run)
    if options.echo:
        await server.stop(0)


if __name__ == "__main__":
    asyncio.run(load(tyro.cli(Options, prog="python -m benchmarks.throughput_load", description=__doc__)))
