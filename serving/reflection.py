"""Server reflection, v1 and v1alpha: tools ask for the one or the other. They differ in nothing but the package."""

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

ALPHA = "grpc.reflection.v1alpha"
V1 = "grpc.reflection.v1"
SERVICE_NAMES = tuple(f"{package}.ServerReflection" for package in (V1, ALPHA))


def enable_reflection(server: grpc.aio.Server, *services: str) -> None:
    """Lets clients ask a server for the schemas of its services."""
    _describe_v1()
    servicer = reflection_aio.ReflectionServicer((*services, *SERVICE_NAMES))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    # grpcio-reflection brings v1alpha alone
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE_NAMES[0], {"ServerReflectionInfo": handler}),)
    )


def _describe_v1() -> None:
    """Makes v1's schema, so that it can be asked for itself; the same one again changes nothing."""
    alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    alpha.ClearField("options")
    v1 = descriptor_pb2.FileDescriptorProto()
    text_format.Parse(text_format.MessageToString(alpha).replace(ALPHA, V1), v1)
    v1.name = "grpc/reflection/v1/reflection.proto"
    descriptor_pool.Default().Add(v1)
