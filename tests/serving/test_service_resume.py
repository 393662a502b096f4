"""Streams that go on after their connection broke. The toy's total tells whether the state was kept."""

from dataclasses import replace

import grpc

from serving.bundle import Bundle
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from tests.serving.conftest import LIMITS, GatedRuntime, open_stub, serve_here, served_model
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


async def break_after(channel: grpc.aio.Channel, *values: int) -> pb.StreamStarted:
    """A stream whose client vanishes once these frames are answered."""
    call: Call = open_stub(channel).SegmentStream()
    await send(call, configuration(), *requests(*values))
    started = (await heard(call, "started")).started
    for _ in values:
        await heard(call, "result")
    call.cancel()
    return started


@in_asyncio
async def test_a_stream_goes_on_with_its_state_where_the_connection_broke(toy_bundle: Bundle) -> None:
    whole = [10, 20, 30, 40]
    async with serve_here(served_model(toy_bundle)) as server, grpc.aio.insecure_channel(server.address) as channel:
        undisturbed = await converse(server.address, configuration(), *requests(*whole))
        started = await break_after(channel, *whole[:2])
        assert (started.resumed, started.resume_ms) == (False, 60_000)
        await until(lambda: len(server.sessions) == 0)
        rest = [request(sequence, whole[sequence]) for sequence in (2, 3)]
        resumed = await converse(server.address, configuration(resumeToken=started.resume_token), *rest)
    again = resumed.responses[0].started
    assert again.resumed
    assert again.resume_token != started.resume_token
    assert resumed.answered == undisturbed.answered[2:]


@in_asyncio
async def test_a_client_may_be_back_before_the_server_has_missed_it(
    toy_bundle: Bundle, gated_runtime: GatedRuntime
) -> None:
    """Its first connection is still open, as that of a network that fell silent would be; a frame waits in it."""
    async with (
        serve_here(served_model(toy_bundle, gated_runtime)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        silent: Call = open_stub(channel).SegmentStream()
        await send(silent, configuration(), *requests(10, 20))
        token = (await heard(silent, "started")).started.resume_token
        await heard(silent, "result")
        await heard(silent, "result")
        back: Call = open_stub(channel).SegmentStream()
        await send(back, configuration(resumeToken=token), request(2, 30))
        assert (await heard(back, "started")).started.resumed
        assert (await heard(back, "result")).result.provenance.key_frame_age == 2
        assert len(server.sessions) == 1
        moved = await hear_out(silent)
        assert (moved.code, moved.message) == (grpc.StatusCode.ABORTED, "the stream goes on in another call")
        await back.done_writing()
        assert (await hear_out(back)).code == grpc.StatusCode.OK


@in_asyncio
async def test_a_stale_token_starts_anew_and_says_so(toy_bundle: Bundle) -> None:
    """Never given, kept for too short a time, or used already."""
    model = served_model(toy_bundle)
    async with (
        serve_here(model, limits=replace(LIMITS, resume_s=0.05)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        started = await break_after(channel, 10, 20)
        await until(lambda: model.num_streams == 0)
        for token in ("never given", started.resume_token):
            conversation = await converse(server.address, configuration(resumeToken=token), *requests(30))
            assert conversation.code == grpc.StatusCode.OK
            assert not conversation.responses[0].started.resumed
            assert conversation.labels == [60]  # the first frame is its own key frame
            assert conversation.results[0].provenance.kind == pb.FRAME_KIND_KEY


@in_asyncio
async def test_a_stream_that_ended_as_it_should_is_not_kept(toy_bundle: Bundle) -> None:
    model = served_model(toy_bundle)
    async with serve_here(model) as server:
        ended = await converse(server.address, configuration(), *requests(10))
        assert model.num_streams == 0
        token = ended.responses[0].started.resume_token
        again = await converse(server.address, configuration(resumeToken=token), *requests(30))
    assert not again.responses[0].started.resumed


@in_asyncio
async def test_streams_that_are_kept_make_room_for_clients_that_are_there(toy_bundle: Bundle) -> None:
    """The one that waits longest goes first; those that are open never do."""
    model = served_model(toy_bundle, max_streams=2)
    async with serve_here(model) as server, grpc.aio.insecure_channel(server.address) as channel:
        older = await break_after(channel, 10)
        newer = await break_after(channel, 20)
        await until(lambda: len(server.sessions) == 0)
        assert model.num_streams == 2
        opened: Call = open_stub(channel).SegmentStream()
        await send(opened, configuration(), *requests(1))
        await heard(opened, "started")
        forgotten: Call = open_stub(channel).SegmentStream()
        await send(forgotten, configuration(resumeToken=older.resume_token))
        assert not (await heard(forgotten, "started")).started.resumed  # it took the place of the newer one
        full = await converse(server.address, configuration(resumeToken=newer.resume_token))
    assert full.code == grpc.StatusCode.RESOURCE_EXHAUSTED


@in_asyncio
async def test_frames_in_flight_when_the_connection_breaks_are_forgotten_or_done(
    toy_bundle: Bundle, gated_runtime: GatedRuntime
) -> None:
    """The gate holds the second frame: it is done, and its state kept; those behind it were never begun."""
    model = served_model(toy_bundle, gated_runtime)
    async with serve_here(model) as server, grpc.aio.insecure_channel(server.address) as channel:
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration(), request(0, 10))
        token = (await heard(call, "started")).started.resume_token
        await heard(call, "result")
        gated_runtime.gate.clear()
        num_runs = len(gated_runtime.runs)
        await send(call, request(1, 20))
        await until(lambda: len(gated_runtime.runs) > num_runs)
        await send(call, request(2, 30), request(3, 40))
        call.cancel()
        await until(lambda: len(server.sessions) == 0)
        gated_runtime.gate.set()
        resumed = await converse(server.address, configuration(resumeToken=token), request(2, 50))
    # totals: 10 from the key frame, 30 with the second frame
    assert resumed.labels == [80]
    assert resumed.results[0].provenance.key_frame_age == 2
