"""Streams with a latency objective, on a device that is slow for a while."""

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from serving.bundle import Bundle
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.runtime import Graph, Value
from tests.serving.conftest import open_stub, serve_here, served_model
from tests.serving.conversations import Call, configuration, hear_out, heard, in_asyncio, label, request, send


class SlowRuntime(OnnxRuntime):
    """Takes as long for each run as it is told."""

    def __init__(self) -> None:
        super().__init__("cpu", threads=1)
        self.seconds = 0.0

    def load(self, path: Path) -> Graph:
        return SlowGraph(super().load(path), self)


class SlowGraph:
    def __init__(self, graph: Graph, runtime: SlowRuntime) -> None:
        self._graph = graph
        self._runtime = runtime
        self.inputs = graph.inputs
        self.outputs = graph.outputs
        self.max_batch = graph.max_batch

    def run(self, requests: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
        time.sleep(self._runtime.seconds)
        return self._graph.run(requests)


@in_asyncio
async def test_overload_gives_up_what_may_be_given_up_and_takes_it_back(toy_bundle: Bundle) -> None:
    """Frames are sent as fast as they are answered. What the client hears is checked against what it was told."""
    runtime = SlowRuntime()
    objective = {"targetMs": 100, "maySkipSteps": True, "mayDropFrames": True}
    config = configuration(latency=objective, delivery={"maxInFlight": 4}, keyFrames={"fixed": {"interval": 1}})
    levels, kinds, drops = [0], set(), set()
    ages: dict[int, int] = {}  # the oldest key frame at each level
    told: dict[int, str] = {}  # of each level
    num_answered = 0
    async with (
        serve_here(served_model(toy_bundle, runtime)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        call: Call = open_stub(channel).SegmentStream()
        await send(call, config)
        await heard(call, "started")
        runtime.seconds = 0.08
        numbers = itertools.count()
        for _ in range(4):
            await send(call, request(next(numbers), 1))
        while levels[-1] or len(levels) == 1:
            response = await call.read()
            assert isinstance(response, pb.SegmentStreamResponse)
            match response.WhichOneof("body"):
                case "notice":
                    assert response.notice.kind == pb.NOTICE_KIND_DEGRADED
                    levels.append(response.notice.level)
                    told[response.notice.level] = response.notice.message
                    if levels[-1] == 5:
                        runtime.seconds = 0.2  # or no frame would be late now that few are looked at
                    continue
                case "dropped":
                    count = response.dropped.count
                    drops.add(response.dropped.reason)
                    runtime.seconds = 0.0
                case "result":
                    count = 1
                    provenance = response.result.provenance
                    kinds.add(provenance.kind)
                    assert (provenance.kind == pb.FRAME_KIND_HELD) == (provenance.held_frames > 0)
                    if provenance.kind == pb.FRAME_KIND_PROPAGATED:
                        ages[levels[-1]] = max(provenance.key_frame_age, ages.get(levels[-1], 0))
                case _:
                    raise AssertionError(response)
            num_answered += count
            await send(call, *(request(next(numbers), 1) for _ in range(count)))
        await call.done_writing()
        rest = await hear_out(call)
    assert levels == [0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0]
    assert kinds == {pb.FRAME_KIND_KEY, pb.FRAME_KIND_PROPAGATED, pb.FRAME_KIND_HELD}
    assert drops == {pb.DROP_REASON_OVERLOAD}
    assert told[0] == "to hold 100 ms: nothing is given up"
    assert told[3] == "to hold 100 ms: key frames 4 times as far apart, one frame in 2 looked at"
    assert ages[2] == 4  # frames, where without overload each frame is a key frame
    assert rest.code == grpc.StatusCode.OK
    summary = rest.summary
    assert summary.num_frames == num_answered + len(rest.results)
    assert summary.num_held > 0
    assert summary.num_dropped > 0


@in_asyncio
async def test_without_an_objective_nothing_is_given_up(toy_bundle: Bundle) -> None:
    runtime = SlowRuntime()
    async with (
        serve_here(served_model(toy_bundle, runtime)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        runtime.seconds = 0.02
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration(), *(request(number, 1) for number in range(30)))
        await call.done_writing()
        conversation = await hear_out(call)
    assert conversation.kinds == ["started", *["result"] * 30, "summary"]
    assert [label(result) for result in conversation.results] == [2, *range(2, 31)]
