"""The RPCs beside the stream, and what a server counts."""

from pathlib import Path

import grpc
import pytest

from serving.bundle import Bundle, read_bundle
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from tests.serving.conftest import (
    STEP_POISON,
    open_stub,
    serve_here,
    served_model,
    write_toy_bundle,
)
from tests.serving.conversations import (
    Call,
    configuration,
    converse,
    hear_out,
    heard,
    in_asyncio,
    requests,
    send,
    until,
)


@pytest.fixture
def two_versions(tmp_path: Path) -> list[Bundle]:
    return [read_bundle(write_toy_bundle(tmp_path / version, version=version)) for version in ("1", "2")]


@in_asyncio
async def test_models_are_found_by_name_and_version(two_versions: list[Bundle], tmp_path: Path) -> None:
    other = read_bundle(write_toy_bundle(tmp_path / "cat", name="cat"))
    async with (
        serve_here(*map(served_model, [*two_versions, other])) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = open_stub(channel)
        listed = (await stub.ListModels(pb.ListModelsRequest())).models
        assert [(model.name, model.version, model.state) for model in listed] == [
            ("toy", "1", pb.MODEL_STATE_READY),
            ("toy", "2", pb.MODEL_STATE_READY),
            ("cat", "1", pb.MODEL_STATE_READY),
        ]
        for name, version in (("toy@1", "1"), ("toy@2", "2"), ("toy", "2")):
            assert (await stub.GetModel(pb.GetModelRequest(model=name))).model.version == version
            conversation = await converse(server.address, configuration(model=name), *requests(1))
            assert conversation.responses[0].started.model.version == version
            assert conversation.results[0].provenance.model == f"toy@{version}"
        conversation = await converse(server.address, configuration(), *requests(1))
        assert conversation.code == grpc.StatusCode.INVALID_ARGUMENT
        assert conversation.message == "model: this server has several, name one of toy@1, toy@2, cat@1"
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await stub.GetModel(pb.GetModelRequest(model="dog"))
        assert missing.value.code() == grpc.StatusCode.NOT_FOUND


@in_asyncio
async def test_a_model_is_described_before_it_is_ready(toy_bundle: Bundle) -> None:
    model = served_model(toy_bundle)
    async with (
        serve_here(model, is_loaded=False) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        described = (await open_stub(channel).GetModel(pb.GetModelRequest())).model
        assert (described.name, len(described.classes), described.state) == ("toy", 251, pb.MODEL_STATE_LOADING)
        model.load(server.metrics.watch_runs(model.label))
        assert (await open_stub(channel).GetModel(pb.GetModelRequest())).model.state == pb.MODEL_STATE_READY


@in_asyncio
async def test_the_server_tells_its_load_and_limits(toy_bundle: Bundle) -> None:
    async with (
        serve_here(served_model(toy_bundle)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = open_stub(channel)
        call: Call = stub.SegmentStream()
        await send(call, configuration())
        await heard(call, "started")
        info = await stub.GetServerInfo(pb.GetServerInfoRequest())
        assert info.version
        assert (info.num_streams, info.draining) == (1, False)
        assert info.limits == pb.Limits(
            max_streams=8, max_in_flight=16, max_frame_bytes=1_000_000, max_frame_pixels=1_000_000
        )
        await call.done_writing()
        await hear_out(call)
        assert (await stub.GetServerInfo(pb.GetServerInfoRequest())).num_streams == 0


@in_asyncio
async def test_metrics_count_frames_and_streams_by_outcome(toy_bundle: Bundle) -> None:
    async with serve_here(served_model(toy_bundle)) as server:
        await converse(server.address, configuration(), *requests(10, b"", 20, STEP_POISON))
        await converse(server.address, configuration(model="dog"))
        # a stream is counted once its status is on its way
        await until(lambda: b'flowseg_streams_total{model="none",status="NOT_FOUND"}' in server.metrics.text())
        await until(lambda: b'flowseg_streams_total{model="toy@1",status="OK"} 1.0' in server.metrics.text())
        lines = server.metrics.text().decode().splitlines()
    assert 'flowseg_frames_total{model="toy@1",outcome="result"} 2.0' in lines
    assert 'flowseg_frames_total{model="toy@1",outcome="error"} 2.0' in lines
    assert 'flowseg_frame_seconds_count{model="toy@1",part="total"} 2.0' in lines
    assert 'flowseg_graph_failures_total{graph="step",model="toy@1"} 1.0' in lines
    assert 'flowseg_streams_total{model="toy@1",status="OK"} 1.0' in lines
    assert 'flowseg_streams_total{model="none",status="NOT_FOUND"} 1.0' in lines
