from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from serving.bundle import Bundle
from serving.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING, ModelHealth
from serving.models import Models
from serving.reflection import SERVICE_NAMES
from serving.service import SERVICE
from tests.serving.conftest import PATIENCE_S, ServerProcess, served_model
from tests.serving.conversations import in_asyncio


async def check(channel: grpc.aio.Channel, name: str) -> int:
    response = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
    return int(response.status)


@in_asyncio
async def test_a_model_is_healthy_from_when_it_is_warm_until_it_retires_and_then_unknown(toy_bundle: Bundle) -> None:
    model = served_model(toy_bundle)
    models, welcoming = Models([model]), [False]
    health = ModelHealth(models, ("a.Service",), lambda: welcoming[0])
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def states() -> list[int]:
            return [await check(channel, name) for name in ("", "a.Service", "toy@1")]

        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="toy@1"))

        async def watched() -> int:
            await health.refresh()
            return int((await watch.read()).status)

        assert await states() == [NOT_SERVING] * 3
        assert await watched() == NOT_SERVING
        model.load(lambda run: None)
        assert await states() == [NOT_SERVING, NOT_SERVING, SERVING]  # other models may still be loading
        assert await watched() == SERVING
        welcoming[0] = True
        assert await states() == [SERVING] * 3
        model.is_retiring = True
        assert await states() == [NOT_SERVING] * 3  # it was the only one
        assert await watched() == NOT_SERVING
        models.take_finished()
        assert await watched() == SERVICE_UNKNOWN
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await check(channel, "toy@1")
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
        health.close()
        with pytest.raises(grpc.aio.AioRpcError):
            await watch.read()
    await server.stop(grace=PATIENCE_S)  # nobody watches any more, so there is nothing to wait for
    model.close()


@in_asyncio
async def test_an_engine_that_breaks_makes_its_model_and_the_server_unhealthy(toy_bundle: Bundle) -> None:
    model = served_model(toy_bundle)
    model.load(lambda run: None)
    health = ModelHealth(Models([model]), (), lambda: True)
    await health.refresh()
    (engine,) = model.engines
    engine.close()
    await health.refresh()
    assert health._server_status == {"": NOT_SERVING, "toy@1": NOT_SERVING}


@pytest.mark.parametrize("name", SERVICE_NAMES)
@in_asyncio
async def test_reflection_tells_of_all_services_in_either_version(toy_server: ServerProcess, name: str) -> None:
    async with grpc.aio.insecure_channel(toy_server.address) as channel:
        ask: Any = channel.stream_stream(  # Any: there is no stub of v1
            f"/{name}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        questions = [reflection_pb2.ServerReflectionRequest(list_services="")]
        services = (SERVICE, "grpc.health.v1.Health", *SERVICE_NAMES)
        questions += [reflection_pb2.ServerReflectionRequest(file_containing_symbol=each) for each in services]
        listed, *described = [response async for response in ask(iter(questions))]
    assert {each.name for each in listed.list_services_response.service} == set(services)
    for service, response in zip(services, described, strict=True):
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(encoded)
            for encoded in response.file_descriptor_response.file_descriptor_proto
        ]
        assert service in [f"{file.package}.{each.name}" for file in files for each in file.service]
