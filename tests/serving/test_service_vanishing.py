"""Clients that vanish."""

from dataclasses import replace

import grpc

from serving.bundle import Bundle
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from tests.serving.conftest import (
    LIMITS,
    GatedRuntime,
    open_stub,
    serve_here,
    served_model,
)
from tests.serving.conversations import (
    Call,
    configuration,
    converse,
    hear_out,
    heard,
    in_asyncio,
    request,
    requests,
    send,
    until,
)


@in_asyncio
async def test_a_client_that_vanishes_frees_its_slot_and_disturbs_no_other(
    toy_bundle: Bundle, gated_runtime: GatedRuntime
) -> None:
    """It goes while the gate holds a frame of each; more of its frames wait behind."""
    model = served_model(toy_bundle, gated_runtime)
    values = [10, 20, 30, 40]
    async with (
        serve_here(model, limits=replace(LIMITS, resume_s=0)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        undisturbed = await converse(server.address, configuration(), *requests(*values))
        stays: Call = open_stub(channel).SegmentStream()
        goes: Call = open_stub(channel).SegmentStream()
        await send(stays, configuration(), *requests(*values[:2]))
        await send(goes, configuration(), *requests(99, 98))
        before = [await heard(stays, "started"), await heard(stays, "result"), await heard(stays, "result")]
        for kind in ("started", "result", "result"):
            await heard(goes, kind)
        gated_runtime.gate.clear()
        await send(goes, *(request(sequence, sequence) for sequence in range(2, 8)))
        await send(stays, request(2, values[2]))
        goes.cancel()
        await until(lambda: model.num_streams == 1)
        gated_runtime.gate.set()
        await send(stays, request(3, values[3]))
        await stays.done_writing()
        conversation = await hear_out(stays, *before)
        await until(lambda: model.num_streams == 0)
        assert (await open_stub(channel).GetServerInfo(pb.GetServerInfoRequest())).num_streams == 0
        await until(lambda: b'flowseg_streams_total{model="toy@1",status="CANCELLED"} 1.0' in server.metrics.text())
    assert conversation.code == grpc.StatusCode.OK
    assert [result.labels.data for result in conversation.results] == [
        result.labels.data for result in undisturbed.results
    ]
    assert conversation.answered == undisturbed.answered
    assert conversation.summary == undisturbed.summary


@in_asyncio
async def test_a_client_that_vanishes_before_its_configuration_leaves_nothing(toy_bundle: Bundle) -> None:
    model = served_model(toy_bundle, max_streams=1)
    async with (
        serve_here(model) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        call: Call = open_stub(channel).SegmentStream()
        await call.wait_for_connection()
        call.cancel()
        assert (await converse(server.address, configuration(), *requests(1))).labels == [2]
