"""Tokens, roles and quotas on a real server in this process, whose connections are not encrypted."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # it ships no py.typed
from grpc_health.v1 import health_pb2

from serving import session
from serving.bundle import Bundle
from serving.clients import Clients
from serving.frames import Size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import decode_png, encode_png
from tests.serving.authority import TOKENS, bearer, write_tokens
from tests.serving.conftest import LIMITS, SIZE, open_admin_stub, open_stub, serve_here, served_model, toy_frame
from tests.serving.conversations import (
    Call,
    configuration,
    details_of,
    hear_out,
    heard,
    in_asyncio,
    label,
    request,
    requests,
    send,
    until,
)
from tests.serving.test_video_chunks import encode, pictures

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
Raw: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
EXHAUSTED, OK = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OK


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_tokens(tmp_path / "tokens.json")


async def code_of(call: Any) -> grpc.StatusCode:  # Any: of whichever messages
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return OK


async def stream_code(stub: Any, **arguments: Any) -> grpc.StatusCode:  # Any: grpcio-tools writes no types for stubs
    call: Call = stub.SegmentStream(**arguments)
    await call.done_writing()
    return (await hear_out(call)).code


@in_asyncio
async def test_each_call_needs_the_role_that_the_table_says(toy_bundle: Bundle, tokens: Path) -> None:
    image = pb.SegmentImageRequest(format=pb.FrameFormat(encoding=pb.FRAME_ENCODING_PNG), data=encode_png(toy_frame(1)))
    invalid = grpc.StatusCode.INVALID_ARGUMENT  # of a stream that is let in and ends without its first message
    async with (
        serve_here(served_model(toy_bundle), clients=Clients(tokens)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub, admin = open_stub(channel), open_admin_stub(channel)
        unknown: Raw = channel.unary_unary("/no.such/Method")
        reflection: Raw = channel.unary_unary("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        calls: dict[str, Callable[[Any], Any]] = {
            "stream": lambda metadata: stream_code(stub, metadata=metadata),
            "image": lambda metadata: code_of(stub.SegmentImage(image, metadata=metadata)),
            "models": lambda metadata: code_of(stub.ListModels(pb.ListModelsRequest(), metadata=metadata)),
            "info": lambda metadata: code_of(stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=metadata)),
            "streams": lambda metadata: code_of(admin.ListStreams(pb.ListStreamsRequest(), metadata=metadata)),
            "load": lambda metadata: code_of(admin.LoadModel(pb.LoadModelRequest(), metadata=metadata)),
            "unknown": lambda metadata: code_of(unknown(b"", metadata=metadata)),
            "reflection": lambda metadata: code_of(reflection(b"", metadata=metadata)),
        }
        unimplemented = grpc.StatusCode.UNIMPLEMENTED  # this server has no reflection
        allowed = {
            "camera": [invalid, OK, OK, OK, DENIED, DENIED, unimplemented, unimplemented],
            "boss": [DENIED, DENIED, OK, OK, OK, invalid, unimplemented, unimplemented],
            "graphs": [DENIED, DENIED, OK, OK, DENIED, DENIED, unimplemented, unimplemented],
        }
        for client, codes in allowed.items():
            assert await asyncio.gather(*[call(bearer(client)) for call in calls.values()]) == codes, client
        for metadata in ((), (("authorization", "Bearer no"),), (("authorization", TOKENS["boss"]),)):
            assert set(await asyncio.gather(*[call(metadata) for call in calls.values()])) == {UNAUTHENTICATED}
        # health is no secret; this server has none of it, and says so
        check: Raw = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await code_of(check(health_pb2.HealthCheckRequest().SerializeToString())) == unimplemented


@in_asyncio
async def test_a_refusal_says_why_for_people_and_machines_and_never_what_was_sent(
    toy_bundle: Bundle, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Several are refused and one line is written: nobody fills a disk by knocking."""
    caplog.set_level(logging.DEBUG)
    async with (
        serve_here(served_model(toy_bundle), clients=Clients(tokens)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        for _ in range(5):
            call: Call = open_stub(channel).SegmentStream(metadata=(("authorization", "Bearer wrong-secret"),))
            refused = await hear_out(call)
            assert (refused.code, refused.reason, refused.responses) == (UNAUTHENTICATED, "UNAUTHENTICATED", [])
            assert refused.message == "the token is not known here: ask the server's operator for one"
        call = open_stub(channel).SegmentStream(metadata=bearer("boss"))
        refused = await hear_out(call)
        assert (refused.code, refused.reason) == (DENIED, "PERMISSION_DENIED")
        assert refused.message == "the client boss has not the role for this: stream"
        call = open_stub(channel).SegmentStream(metadata=bearer("camera"))
        await send(call, configuration(), request(0, 10))
        await call.done_writing()
        assert (await hear_out(call)).code == OK
    assert caplog.text.count("refused '/flowseg.v1.SegmentationService/SegmentStream' of ipv4:127.0.0.1") == 1
    assert "by camera at ipv4:127.0.0.1" in caplog.text
    assert "secret" not in caplog.text


@in_asyncio
async def test_a_client_has_as_many_streams_as_its_quota_says_and_others_have_theirs(
    toy_bundle: Bundle, tmp_path: Path
) -> None:
    """A call that has not said what it wants counts: half-open ones must not pile up."""
    clients = Clients(write_tokens(tmp_path / "tokens.json", camera={"max_streams": 2}))
    async with (
        serve_here(served_model(toy_bundle), clients=clients) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        silent: Call = open_stub(channel).SegmentStream(metadata=bearer("camera"))
        await silent.wait_for_connection()
        streaming: Call = open_stub(channel).SegmentStream(metadata=bearer("camera"))
        await send(streaming, configuration(), request(0, 10))
        await heard(streaming, "started")
        third = await hear_out(open_stub(channel).SegmentStream(metadata=bearer("camera")))
        assert (third.code, third.reason, third.exhausted_subject) == (EXHAUSTED, "QUOTA", "streams")
        assert third.message == "all 2 streams of camera are taken"
        assert third.asks_to_retry
        silent.cancel()
        await streaming.done_writing()
        assert (await hear_out(streaming)).code == OK
        account = clients.identify(f"Bearer {TOKENS['camera']}").account
        await until(lambda: account.num_streams == 0)
        again: Call = open_stub(channel).SegmentStream(metadata=bearer("camera"))
        await send(again, configuration())
        await heard(again, "started")


@in_asyncio
async def test_all_clients_together_have_so_many_places(toy_bundle: Bundle) -> None:
    async with (
        serve_here(served_model(toy_bundle), max_open_streams=1) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        first: Call = open_stub(channel).SegmentStream()
        await send(first, configuration())
        await heard(first, "started")
        second = await hear_out(open_stub(channel).SegmentStream())
        assert (second.code, second.reason, second.exhausted_subject) == (EXHAUSTED, "STREAM_LIMIT", "streams")
        await first.done_writing()
        assert (await hear_out(first)).code == OK


async def converse_as(stub: Any, client: str, *messages: pb.SegmentStreamRequest) -> Any:  # Any: as above; Conversation
    async def sent() -> AsyncIterator[pb.SegmentStreamRequest]:
        for message in messages:
            yield message

    return await hear_out(stub.SegmentStream(sent(), metadata=bearer(client)))


@pytest.mark.parametrize("quota", [{"frames_per_s": 3}, {"pixels_per_s": 3 * 64 * 64}])
@pytest.mark.parametrize("policy", ["DELIVERY_POLICY_DROP_OLDEST", "DELIVERY_POLICY_LATEST_ONLY"])
@in_asyncio
async def test_frames_beyond_a_quota_are_dropped_once_and_the_stream_goes_on(
    toy_bundle: Bundle, tmp_path: Path, quota: dict[str, float], policy: str
) -> None:
    """More of them in a row than errors may be. The frames after them are answered as if they had never been sent."""
    clients = Clients(write_tokens(tmp_path / "tokens.json", camera=quota))
    num_flood = 2 * LIMITS.max_consecutive_errors
    async with (
        serve_here(served_model(toy_bundle), clients=clients) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        account = clients.identify(f"Bearer {TOKENS['camera']}").account
        call: Call = open_stub(channel).SegmentStream(metadata=bearer("camera"))
        await send(call, configuration(delivery={"policy": policy}))
        before = [await heard(call, "started")]
        for sequence in range(3):  # what is there at once
            await send(call, request(sequence, 10))
            before.append(await heard(call, "result"))
        # half a minute's worth is taken before: no frame of the flood comes late enough to be let in
        account.charge_frame() if "frames_per_s" in quota else account.charge_pixels(64 * 64)
        for _ in range(90):
            account.charge_frame()
            account.charge_pixels(64 * 64)
        await send(call, *[request(3 + index, b"is not looked at", force_key_frame=True) for index in range(num_flood)])
        await until(lambda: next(iter(server.sessions)).describe().totals.num_frames == 3 + num_flood)
        account.follow(account.quota)  # as if the half minute had passed
        await send(call, request(3 + num_flood, 20))
        await call.done_writing()
        conversation = await hear_out(call, *before)
    assert conversation.code == OK
    dropped = [each.dropped for each in conversation.responses if each.HasField("dropped")]
    assert {drop.reason for drop in dropped} == {pb.DROP_REASON_QUOTA}
    covered = [sequence for drop in dropped for sequence in range(drop.first, drop.last + 1)]
    assert covered == list(range(3, 3 + num_flood))
    assert sum(drop.count for drop in dropped) == num_flood
    assert [result.sequence for result in conversation.results] == [0, 1, 2, 3 + num_flood]
    assert conversation.summary.num_dropped == num_flood
    assert label(conversation.results[-1]) == 40  # of a key frame: what was forced is handed on


@in_asyncio
async def test_a_client_that_is_told_of_drops_too_slowly_is_read_no_further_until_it_knows(
    toy_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_DROPS", 1)
    clients = Clients(write_tokens(tmp_path / "tokens.json", camera={"frames_per_s": 0.01}))
    config = configuration(delivery={"policy": "DELIVERY_POLICY_LATEST_ONLY"})
    async with (
        serve_here(served_model(toy_bundle), clients=clients) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        conversation = await converse_as(open_stub(channel), "camera", config, *requests(*[1] * 30))
    dropped = [each.dropped for each in conversation.responses if each.HasField("dropped")]
    assert [drop.first for drop in dropped] == list(range(1, 30))  # one by one: none waited for another
    assert (conversation.code, conversation.summary.num_dropped) == (OK, 29)


@in_asyncio
async def test_a_stream_that_blocks_waits_for_its_quota_and_loses_nothing(toy_bundle: Bundle, tmp_path: Path) -> None:
    clients = Clients(write_tokens(tmp_path / "tokens.json", camera={"frames_per_s": 40}))
    async with (
        serve_here(served_model(toy_bundle), clients=clients) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        account = clients.identify(f"Bearer {TOKENS['camera']}").account
        for _ in range(40):
            account.charge_frame()
        began = time.monotonic()
        conversation = await converse_as(open_stub(channel), "camera", configuration(), *requests(*[1] * 12))
        assert time.monotonic() - began > 11 / 40 * 0.9
    assert (conversation.code, len(conversation.results)) == (OK, 12)
    assert conversation.summary.num_dropped == 0


@in_asyncio
async def test_a_stream_that_waits_for_its_quota_can_be_closed(toy_bundle: Bundle, tmp_path: Path) -> None:
    clients = Clients(write_tokens(tmp_path / "tokens.json", camera={"frames_per_s": 0.001}))
    async with (
        serve_here(served_model(toy_bundle), clients=clients) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        call: Call = open_stub(channel).SegmentStream(metadata=bearer("camera"))
        await send(call, configuration(), *requests(1, 2, 3))
        started = (await heard(call, "started")).started
        first = await heard(call, "result")
        await open_admin_stub(channel).CloseStream(
            pb.CloseStreamRequest(stream_id=started.stream_id), metadata=bearer("boss")
        )
        ended = await hear_out(call, first)
    assert ended.code == grpc.StatusCode.CANCELLED
    assert ended.summary.num_frames == 1  # the others were not read


@in_asyncio
async def test_a_video_is_decoded_also_where_its_frames_are_beyond_the_quota(
    toy_bundle: Bundle, tmp_path: Path
) -> None:
    """The last frame is told from the ones before it: it looks as it does to a client without a quota."""
    clients = Clients(write_tokens(tmp_path / "tokens.json", camera={"frames_per_s": 0.01}))
    units = encode("h264", [picture // 2 for picture in pictures(3, Size(SIZE, SIZE))])
    config = configuration(
        format={"encoding": "FRAME_ENCODING_H264"}, delivery={"policy": "DELIVERY_POLICY_DROP_OLDEST"}
    )
    async with serve_here(served_model(toy_bundle)) as server, grpc.aio.insecure_channel(server.address) as channel:
        last = request(2, units[2], force_key_frame=True)
        free = await converse_as(open_stub(channel), "camera", config, *requests(*units[:2]), last)
    async with (
        serve_here(served_model(toy_bundle), clients=clients) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        account = clients.identify(f"Bearer {TOKENS['camera']}").account
        call: Call = open_stub(channel).SegmentStream(metadata=bearer("camera"))
        await send(call, config, request(0, units[0]))
        before = [await heard(call, "started"), await heard(call, "result")]
        await send(call, request(1, units[1]))
        before.append(await heard(call, "dropped"))
        account.follow(account.quota)  # as if its time had passed
        await send(call, last)
        await call.done_writing()
        held = await hear_out(call, *before)
    assert [result.sequence for result in held.results] == [0, 2]
    one, other = (decode_png(conversation.results[-1].labels.data) for conversation in (free, held))
    np.testing.assert_array_equal(one, other)


@in_asyncio
async def test_images_beyond_a_quota_are_refused(toy_bundle: Bundle, tmp_path: Path) -> None:
    clients = Clients(write_tokens(tmp_path / "tokens.json", camera={"frames_per_s": 0.1}))
    image = pb.SegmentImageRequest(format=pb.FrameFormat(encoding=pb.FRAME_ENCODING_PNG), data=encode_png(toy_frame(1)))
    async with (
        serve_here(served_model(toy_bundle), clients=clients) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = open_stub(channel)
        await stub.SegmentImage(image, metadata=bearer("camera"))
        clients.identify(f"Bearer {TOKENS['camera']}").account.charge_frame()  # however slow this machine is
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.SegmentImage(image, metadata=bearer("camera"))
    error = refused.value
    assert error.code() == EXHAUSTED
    details = details_of(error.trailing_metadata(), error.code(), error.details())
    retry = next(detail for detail in details if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR))
    assert 10 <= error_details_pb2.RetryInfo.FromString(retry.value).retry_delay.seconds <= 20


@in_asyncio
async def test_a_client_is_held_to_its_own_limits_and_told_them(toy_bundle: Bundle, tmp_path: Path) -> None:
    quota = {"max_frame_mb": 0.001, "max_frame_megapixels": 0.0001, "idle_timeout_s": 0.05}
    clients = Clients(write_tokens(tmp_path / "tokens.json", camera=quota))
    async with (
        serve_here(served_model(toy_bundle), clients=clients) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = open_stub(channel)
        limits = (await stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=bearer("camera"))).limits
        assert (limits.max_frame_bytes, limits.max_frame_pixels) == (1000, 100)
        limits = (await stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=bearer("boss"))).limits
        assert limits.max_frame_bytes == LIMITS.max_frame_bytes
        too_large = await converse_as(stub, "camera", configuration(), request(0, b"x" * 1001))
        assert (too_large.code, too_large.reason) == (EXHAUSTED, "FRAME_TOO_LARGE")
        (error,) = (await converse_as(stub, "camera", configuration(), request(0, 1))).errors
        assert "64x64" in error.message
        idle: Call = stub.SegmentStream(metadata=bearer("camera"))
        assert (await hear_out(idle)).reason == "IDLE_TIMEOUT"


@in_asyncio
async def test_a_token_that_is_taken_back_ends_its_streams_and_no_others(toy_bundle: Bundle, tokens: Path) -> None:
    document = json.loads(tokens.read_text())
    document["clients"].append(document["clients"][0] | {"name": "other", "token_sha256": ["0" * 64]})
    document["clients"][2]["roles"].append("stream")
    tokens.write_text(json.dumps(document))
    clients = Clients(tokens)
    async with (
        serve_here(served_model(toy_bundle), clients=clients) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        calls: dict[str, Call] = {}
        for client in ("camera", "graphs"):
            calls[client] = open_stub(channel).SegmentStream(metadata=bearer(client))
            await send(calls[client], configuration(), request(0, 10))
            await heard(calls[client], "started")
            await heard(calls[client], "result")
        document["clients"] = document["clients"][1:]  # without the camera
        tokens.write_text(json.dumps(document))
        clients.reload()
        server.sessions.end_unknown(clients)
        ended = await hear_out(calls["camera"])
        assert (ended.code, ended.message) == (UNAUTHENTICATED, "the token of this stream was taken back")
        assert ended.summary.num_results == 1
        await send(calls["graphs"], request(1, 20))
        await calls["graphs"].done_writing()
        rest = await hear_out(calls["graphs"])
        assert (rest.code, rest.labels) == (OK, [30])


@in_asyncio
async def test_a_stream_is_resumed_by_its_own_client_alone(toy_bundle: Bundle, tokens: Path) -> None:
    """A resume token that got into other hands gives no state away, and does not end the stream it is of."""
    document = json.loads(tokens.read_text())
    document["clients"][2]["roles"].append("stream")
    tokens.write_text(json.dumps(document))
    async with (
        serve_here(served_model(toy_bundle), clients=Clients(tokens)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = open_stub(channel)
        call: Call = stub.SegmentStream(metadata=bearer("camera"))
        await send(call, configuration(), request(0, 10))
        token = (await heard(call, "started")).started.resume_token
        await heard(call, "result")
        stolen = await converse_as(stub, "graphs", configuration(resumeToken=token), request(1, 20))
        assert (stolen.responses[0].started.resumed, stolen.labels) == (False, [40])
        await send(call, request(1, 20))
        assert label((await heard(call, "result")).result) == 30
        call.cancel()
        own = await converse_as(stub, "camera", configuration(resumeToken=token), request(2, 30))
        assert (own.responses[0].started.resumed, own.labels) == (True, [60])
