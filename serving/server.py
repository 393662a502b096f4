"""Serves bundles to video streams: `python -m serving.server BUNDLE [BUNDLE ...]`.

gRPC (`flowseg.v1`, health, reflection) on one port, status over HTTP on another. On SIGTERM or SIGINT it tells its
streams, gives them time to end, and leaves with exit status 0.
"""

import asyncio
import functools
import json
import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import tyro
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from serving.bundle import BundleError, read_bundle
from serving.generated.flowseg.v1 import segmentation_pb2_grpc
from serving.graphs import pick_variant
from serving.models import Models, ServedModel
from serving.observability import Metrics
from serving.options import ServerOptions
from serving.runtimes.choice import open_runtime
from serving.service import SERVICE, SegmentationService
from serving.status import AddressError, HttpServer, Readiness, bind, create_app

logger = logging.getLogger(__name__)

MESSAGE_OVERHEAD = 65536  # bytes that a message may have around its frame


def read_models(options: ServerOptions) -> Models:
    """Reads and checks the bundles, without loading their graphs.

    Raises:
        BundleError: with one sentence that says what is wrong.
        ValueError: if there is no such device, or the runtime that was asked for is not there.
    """
    precision, size = options.precision, options.height_and_width()
    models = []
    for folder in options.bundles:
        bundle = read_bundle(folder)
        runtime = open_runtime(options.runtime, options.device, options.threads, bundle, precision, size)
        models.append(
            ServedModel(
                bundle,
                pick_variant(bundle, runtime.name, precision, size),
                runtime,
                max_streams=options.max_streams,
                max_batch=options.max_batch,
            )
        )
    return Models(models)


async def serve(options: ServerOptions, models: Models) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        AddressError: if a port is taken.
        BundleError: if a graph cannot be run.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics, readiness, limits = Metrics(), Readiness(), options.limits()
    pool = ThreadPoolExecutor(options.codec_threads, thread_name_prefix="codec")
    service = SegmentationService(models, limits, pool, metrics)
    health = health_aio.HealthServicer()
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),  # or a second server would share the port without a word
            ("grpc.max_receive_message_length", limits.max_frame_bytes + MESSAGE_OVERHEAD),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", 30_000),  # finds clients that vanished without a goodbye
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # and lets clients look for us as often
        ]
    )
    # grpcio-tools writes no types for stubs
    segmentation_pb2_grpc.add_SegmentationServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(
        (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), server
    )
    for name in ("", SERVICE):
        await health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    http_socket = bind(options.host, options.http_port)
    port = listen(server, options.host, options.port)
    http_port = http_socket.getsockname()[1]
    http = HttpServer(create_app(models, readiness, metrics))
    await server.start()
    http_task = asyncio.create_task(http.serve(sockets=[http_socket]))
    logger.info("gRPC on %s:%d, HTTP on %s:%d, models are loading", options.host, port, options.host, http_port)
    try:
        for model in models:
            metrics.watch_streams(model.label, functools.partial(getattr, model, "num_streams"))
            await asyncio.to_thread(model.load, metrics.watch_runs(model.label))
            logger.info(
                "%s is warm: %s for frames of %s pixels on %s",
                model.label,
                model.variant.precision,
                model.size,
                model.runtime.description,
            )
        for name in ("", SERVICE):
            await health.set(name, health_pb2.HealthCheckResponse.SERVING)
        readiness.set(True, "")
        logger.info("ready")
        if options.json and not stop.is_set():
            announce(options.host, port, http_port, models)
        await stop.wait()
        logger.info("shutting down: %g s for open streams", options.grace_s)
        readiness.set(False, "the server shuts down")
        await health.enter_graceful_shutdown()
        await service.drain(options.grace_s)
    finally:
        await server.stop(grace=0)
        http.should_exit = True
        await http_task
        for model in models:
            await asyncio.to_thread(model.close)
        pool.shutdown()


def listen(server: grpc.aio.Server, host: str, port: int) -> int:
    """Binds the gRPC server and returns its port.

    Raises:
        AddressError: if it is taken or not ours.
    """
    try:
        # asked for first: gRPC itself would write its own lines to stderr
        bind(host, port).close()
        return server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise AddressError(f"cannot listen on {host}:{port}: is another server running there?") from error


def announce(host: str, port: int, http_port: int, models: Models) -> None:
    """Writes where the server is, for machines."""
    document = {"host": host, "port": port, "http_port": http_port, "models": [model.label for model in models]}
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Runs the command."""
    options = tyro.cli(ServerOptions, prog="python -m serving.server", description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        options.check()
        models = read_models(options)
    except ValueError as error:
        return refuse(error)
    try:
        asyncio.run(serve(options, models))
    except (AddressError, BundleError) as error:
        return refuse(error)
    return 0


def refuse(error: Exception) -> int:
    """Says what the user got wrong, and gives the exit status for it."""
    sys.stderr.write(f"{error}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
