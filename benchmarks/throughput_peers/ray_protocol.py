"""The gRPC service of the Ray Serve peer. Its messages are protobuf's own wrappers of bytes."""

from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

SERVICE = "throughput.PerFrame"
METHOD = "segment"


def add_to_server(servicer: Any, server: Any) -> None:
    """What Ray Serve's proxy calls to learn the service."""
    handler = grpc.stream_stream_rpc_method_handler(
        getattr(servicer, METHOD),
        request_deserializer=BytesValue.FromString,
        response_serializer=BytesValue.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
