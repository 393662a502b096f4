"""AdminService: models that come and go under open streams, and streams that are looked at and ended."""

from pathlib import Path

import grpc
import pytest

from serving.bundle import MANIFEST_FILE, Bundle, read_bundle
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from tests.serving.conftest import (
    GatedRuntime,
    open_admin_stub,
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
    label,
    request,
    requests,
    send,
    until,
)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "second", version="2")


@in_asyncio
async def test_old_streams_finish_on_the_old_version_and_new_ones_start_on_the_new(
    toy_bundle: Bundle, second: Path
) -> None:
    async with serve_here(served_model(toy_bundle)) as server, grpc.aio.insecure_channel(server.address) as channel:
        old: Call = open_stub(channel).SegmentStream()
        await send(old, configuration(), request(0, 10))
        await heard(old, "started")
        assert label((await heard(old, "result")).result) == 20
        loaded = await open_admin_stub(channel).LoadModel(pb.LoadModelRequest(bundle=str(second)))
        assert (loaded.model.version, loaded.model.state) == ("2", pb.MODEL_STATE_READY)
        assert list(loaded.retired) == ["toy@1"]
        notice = (await heard(old, "notice")).notice
        assert (notice.kind, notice.model) == (pb.NOTICE_KIND_MODEL_RELOADED, "toy@2")
        states = {model.label: model.state for model in server.models}
        assert states == {"toy@1": pb.MODEL_STATE_RETIRING, "toy@2": pb.MODEL_STATE_READY}
        new = await converse(server.address, configuration(model="toy"), *requests(1))
        assert new.results[0].provenance.model == "toy@2"
        by_version = await converse(server.address, configuration(model="toy@1"), *requests(1))
        assert by_version.code == grpc.StatusCode.NOT_FOUND
        await send(old, request(1, 20))
        await old.done_writing()
        rest = await hear_out(old)
        assert rest.labels == [30]  # the state is that of before
        assert rest.results[0].provenance.model == "toy@1"
        assert rest.code == grpc.StatusCode.OK
        await until(lambda: [model.label for model in server.models] == ["toy@2"])
    assert b'flowseg_open_streams{model="toy@1"}' not in server.metrics.text()


@in_asyncio
async def test_a_broken_bundle_leaves_what_is_served(toy_bundle: Bundle, second: Path) -> None:
    (second / "step.onnx").write_bytes(b"no graph")
    async with serve_here(served_model(toy_bundle)) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub = open_admin_stub(channel)
        for bundle, code, reason in (
            (str(second), grpc.StatusCode.INVALID_ARGUMENT, "does not match the manifest's SHA-256"),
            (str(second / "nothing"), grpc.StatusCode.INVALID_ARGUMENT, "there is no bundle at"),
            ("", grpc.StatusCode.INVALID_ARGUMENT, "name the folder of a bundle"),
            (str(toy_bundle.folder), grpc.StatusCode.ALREADY_EXISTS, "toy@1 is served already"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=reason) as refused:
                await stub.LoadModel(pb.LoadModelRequest(bundle=bundle))
            assert refused.value.code() == code
        assert [(model.label, model.state) for model in server.models] == [("toy@1", pb.MODEL_STATE_READY)]
        assert (await converse(server.address, configuration(), *requests(1))).labels == [2]


@in_asyncio
async def test_a_graph_that_does_not_run_is_found_before_it_serves(toy_bundle: Bundle, second: Path) -> None:
    """Its manifest promises a state of another shape, which the warm-up sees."""
    manifest = (second / MANIFEST_FILE).read_text()
    (second / MANIFEST_FILE).write_text(manifest.replace('"shape": [\n            1\n', '"shape": [\n            2\n'))
    assert read_bundle(second).manifest.variants[0].state[0].shape == (2,)
    async with serve_here(served_model(toy_bundle)) as server, grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="of shape") as refused:
            await open_admin_stub(channel).LoadModel(pb.LoadModelRequest(bundle=str(second)))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert [model.label for model in server.models] == ["toy@1"]


@in_asyncio
async def test_a_version_is_unloaded_once_it_has_no_stream(toy_bundle: Bundle, second: Path) -> None:
    models = [served_model(toy_bundle), served_model(read_bundle(second))]
    async with serve_here(*models) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub = open_admin_stub(channel)
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration(model="toy@1"))
        await heard(call, "started")
        assert (await stub.UnloadModel(pb.UnloadModelRequest(model="toy@1"))).num_streams == 1
        with pytest.raises(grpc.aio.AioRpcError, match="toy@2 is the last model that is ready") as last:
            await stub.UnloadModel(pb.UnloadModelRequest(model="toy@2"))
        assert last.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(grpc.aio.AioRpcError, match="there is no model 'dog'") as missing:
            await stub.UnloadModel(pb.UnloadModelRequest(model="dog"))
        assert missing.value.code() == grpc.StatusCode.NOT_FOUND
        await call.done_writing()
        assert (await hear_out(call)).code == grpc.StatusCode.OK
        await until(lambda: [model.label for model in server.models] == ["toy@2"])


@in_asyncio
async def test_streams_are_listed_with_their_totals_and_ended_by_name(
    toy_bundle: Bundle, gated_runtime: GatedRuntime
) -> None:
    """The gate holds a frame when the stream is closed: it is still answered."""
    async with (
        serve_here(served_model(toy_bundle, gated_runtime)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = open_admin_stub(channel)
        assert list((await stub.ListStreams(pb.ListStreamsRequest())).streams) == []
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration(), *requests(10, b""))
        stream_id = (await heard(call, "started")).started.stream_id
        await heard(call, "result")
        await heard(call, "frame_error")
        gated_runtime.gate.clear()
        await send(call, request(2, 20))
        (session,) = server.sessions
        await until(lambda: session.describe().in_flight == 1)
        (listed,) = (await stub.ListStreams(pb.ListStreamsRequest())).streams
        assert (listed.stream_id, listed.model) == (stream_id, "toy@1")
        assert listed.peer.startswith("ipv4:127.0.0.1:")
        assert listed.totals == pb.StreamSummary(num_frames=3, num_results=1, num_errors=1, num_key_frames=1)
        await stub.CloseStream(pb.CloseStreamRequest(stream_id=stream_id))
        gated_runtime.gate.set()
        ended = await hear_out(call)
        assert (ended.code, ended.message) == (grpc.StatusCode.CANCELLED, "an administrator closed the stream")
        assert ended.kinds == ["result", "summary"]
        with pytest.raises(grpc.aio.AioRpcError, match="there is no open stream") as missing:
            await stub.CloseStream(pb.CloseStreamRequest(stream_id=stream_id))
        assert missing.value.code() == grpc.StatusCode.NOT_FOUND


@in_asyncio
async def test_draining_tells_the_streams_and_refuses_new_ones(toy_bundle: Bundle) -> None:
    async with serve_here(served_model(toy_bundle)) as server, grpc.aio.insecure_channel(server.address) as channel:
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration())
        await heard(call, "started")
        assert (await open_admin_stub(channel).Drain(pb.DrainRequest(grace_ms=5000))).num_streams == 1
        notice = (await heard(call, "notice")).notice
        assert (notice.kind, notice.grace_ms) == (pb.NOTICE_KIND_DRAINING, 5000)
        refused = await converse(server.address, configuration())
        assert refused.code == grpc.StatusCode.UNAVAILABLE
        await call.done_writing()
        assert (await hear_out(call)).code == grpc.StatusCode.OK


@in_asyncio
async def test_streams_are_placed_on_the_device_with_the_fewest(toy_bundle: Bundle) -> None:
    devices = [GatedRuntime(), GatedRuntime()]
    model = served_model(toy_bundle, *devices)
    async with serve_here(model) as server, grpc.aio.insecure_channel(server.address) as channel:
        calls: list[Call] = []
        for _ in range(4):
            calls.append(open_stub(channel).SegmentStream())
            await send(calls[-1], configuration(), request(0, 10))
            await heard(calls[-1], "started")
            await heard(calls[-1], "result")
        assert [engine.num_streams for engine in model.engines] == [2, 2]
        for call in calls:
            await call.done_writing()
            await hear_out(call)
    # the warm-up, and a key frame and a step of each stream
    assert [len(device.runs) for device in devices] == [6, 6]


@in_asyncio
async def test_streams_that_open_side_by_side_refresh_in_turn(toy_bundle: Bundle) -> None:
    model = served_model(toy_bundle)
    config = configuration(keyFrames={"fixed": {"interval": 3}})
    refreshes = []
    async with serve_here(model) as server, grpc.aio.insecure_channel(server.address) as channel:
        calls: list[Call] = [open_stub(channel).SegmentStream() for _ in range(3)]
        for call in calls:
            await send(call, config)
            await heard(call, "started")
        for call in calls:
            await send(call, *requests(*[1] * 8))
            await call.done_writing()
            results = (await hear_out(call)).results
            refreshes.append([result.sequence for result in results if result.provenance.refreshes_key])
    assert refreshes == [[3, 6], [2, 5], [1, 4, 7]]
