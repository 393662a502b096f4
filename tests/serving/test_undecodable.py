"""Bytes that are no message are the client's mistake, and leave no stack trace in the log."""

from typing import Any

import grpc
import pytest

from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from tests.serving.conftest import ServerProcess
from tests.serving.conversations import configuration, request

NO_MESSAGE = b"\xff\xff\xff"
SERVICE = "/flowseg.v1.SegmentationService/"


def open_channel(server: ServerProcess) -> Any:  # Any: grpc has no types for calls of bytes
    return grpc.insecure_channel(server.address)


def test_a_unary_request_that_is_no_message_is_refused(toy_server: ServerProcess) -> None:
    with open_channel(toy_server) as channel:
        for method in (f"{SERVICE}SegmentImage", f"{SERVICE}GetModel", "/grpc.health.v1.Health/Check"):
            with pytest.raises(grpc.RpcError) as failed:
                channel.unary_unary(method)(NO_MESSAGE)
            assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert failed.value.details() == (
                "message: its bytes do not read as a message of the schema: generate the client anew"
            )
        assert channel.unary_unary(f"{SERVICE}GetModel")(b"")  # which is a message


@pytest.mark.parametrize("num_before", [0, 1, 2], ids=["first", "after the configuration", "after a frame"])
def test_a_message_of_a_stream_that_is_none_ends_it_as_a_wrong_request(
    num_before: int, toy_server: ServerProcess
) -> None:
    good = [message.SerializeToString() for message in (configuration(), request(0, 5))][:num_before]
    responses: list[pb.SegmentStreamResponse] = []
    with open_channel(toy_server) as channel:
        call = channel.stream_stream(f"{SERVICE}SegmentStream")(iter([*good, NO_MESSAGE]))
        with pytest.raises(grpc.RpcError):
            responses.extend(map(pb.SegmentStreamResponse.FromString, call))
        assert call.code() == grpc.StatusCode.INVALID_ARGUMENT
    kinds = [response.WhichOneof("body") for response in responses]
    assert kinds == [[], ["started", "summary"], ["started", "result", "summary"]][num_before]
    assert "Traceback" not in toy_server.log.read_text()
