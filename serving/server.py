"""Serves bundles to video streams: `python -m serving.server BUNDLE [BUNDLE ...]`.

gRPC (`flowseg.v1`, health, reflection) on one port, status over HTTP on another, and if wanted `AdminService` on a
third. SIGHUP reads the bundles again and serves those of a new version; open streams go on with the old one. It also
reads the tokens again. What protects a server on a network: serving/SECURITY.md. On SIGTERM
or SIGINT the server tells its streams, gives them time to end, and leaves with exit status 0.
"""

import os

if __name__ == "__main__":
    # Read when gRPC is imported. Else it writes a line for each handshake that fails: who knocks could fill the disk.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import asyncio
import json
import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import tyro
from grpc_health.v1 import health_pb2_grpc

from serving.admin import ADMIN_SERVICE, AdminService, announce_reload
from serving.answering import Surroundings
from serving.bundle import BundleError
from serving.bundle_roots import BundleRoots
from serving.clip_files import RecordingFolder
from serving.clip_writer import ClipWriter
from serving.drift_recorder import DriftRecorder
from serving.exposure import Protection, open_protection
from serving.gatekeeper import Gatekeeper
from serving.generated.flowseg.v1 import segmentation_pb2_grpc
from serving.health import HEALTH_SERVICE, ModelHealth
from serving.http_guard import HttpGuard
from serving.loading import ModelLoader, read_model
from serving.logs import set_up_logs
from serving.models import Models
from serving.observability import Metrics
from serving.options import ServerOptions
from serving.reflection import enable_reflection
from serving.service import SERVICE, SegmentationService
from serving.sessions import Sessions
from serving.spans import NO_TRACING, Tracing, open_tracing
from serving.status import AddressError, HttpServer, Readiness, bind, create_app
from serving.undecodable import UndecodableInterceptor

logger = logging.getLogger(__name__)

FAREWELL_S = 1.0  # for refusals that are on their way when the server leaves
MESSAGE_OVERHEAD = 65536  # bytes that a message may have around its frame


def read_models(options: ServerOptions) -> Models:
    """Reads and checks the bundles, without loading their graphs.

    Raises:
        BundleError: with one sentence that says what is wrong.
        ValueError: if there is no such device, or the runtime that was asked for is not there.
    """
    return Models([read_model(folder, options) for folder in options.bundles])


def open_recorder(options: ServerOptions) -> DriftRecorder | None:
    """What keeps clips of streams that drift, if that is asked for.

    Raises:
        RecordingError: if the folder cannot be recorded into.
    """
    if options.record_drift is None:
        return None
    recordings = RecordingFolder(options.record_drift, int(options.record_drift_mb * 1e6))
    return DriftRecorder(
        ClipWriter(recordings), threshold=options.drift_threshold, clip_frames=options.record_drift_frames
    )


@dataclass(frozen=True)
class Ports:
    """Where a server listens."""

    grpc: int
    http: int
    admin: int | None  # None: nowhere


async def serve(
    options: ServerOptions,
    models: Models,
    recorder: DriftRecorder | None,
    protection: Protection,
    tracing: Tracing = NO_TRACING,
) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        AddressError: if a port is taken.
        BundleError: if a graph cannot be run.
    """
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number, event in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, reload)):
        loop.add_signal_handler(number, event.set)
    metrics, readiness, limits = Metrics(options.metrics_streams), Readiness(), options.limits()
    pool = ThreadPoolExecutor(options.codec_threads, thread_name_prefix="codec")
    sessions, loader = Sessions(), ModelLoader(models, options, metrics)
    surroundings = Surroundings(limits, pool, metrics, recorder, tracing)
    service = SegmentationService(models, surroundings, sessions, loader.unload_finished)
    health = ModelHealth(models, (SERVICE,), lambda: readiness.is_ready)

    async def drain(grace_s: float) -> None:
        """Sends new streams elsewhere, and sees the open ones off."""
        logger.info("draining: %g s for open streams", grace_s)
        readiness.set(False, "the server shuts down")
        metrics.drain()
        await health.enter_graceful_shutdown()
        await sessions.drain(grace_s)

    roots = BundleRoots(options.bundle_root, options.bundles)
    admin = AdminService(models, loader, sessions, drain, options.grace_s, roots)
    gatekeeper = Gatekeeper(protection.clients, options.max_open_streams)
    message_bytes = 2 * limits.max_frame_bytes + MESSAGE_OVERHEAD  # so that we say what is wrong with too large a frame
    server = create_grpc_server(message_bytes, gatekeeper)
    admin_server = create_grpc_server(MESSAGE_OVERHEAD, gatekeeper)
    # grpcio-tools writes no types for stubs
    segmentation_pb2_grpc.add_SegmentationServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    segmentation_pb2_grpc.add_AdminServiceServicer_to_server(admin, admin_server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    enable_reflection(server, SERVICE, HEALTH_SERVICE)
    enable_reflection(admin_server, ADMIN_SERVICE)

    http_socket = bind(options.host, options.http_port)
    ports = Ports(
        grpc=listen(server, options.host, options.port, protection),
        http=http_socket.getsockname()[1],
        admin=None
        if options.admin_port is None
        else listen(admin_server, options.admin_host, options.admin_port, protection),
    )
    app = HttpGuard(create_app(models, readiness, metrics), protection.clients)
    certificates = protection.certificates
    http = HttpServer(app, None if certificates is None else certificates.http_context())
    await server.start()
    http_task = asyncio.create_task(http.serve(sockets=[http_socket]))
    logger.info("gRPC on %s:%d, HTTP on %s:%d, models are loading", options.host, ports.grpc, options.host, ports.http)
    reloading = asyncio.create_task(reload_when_told(reload, loader, sessions, protection))
    watching = asyncio.create_task(health.keep_fresh())
    try:
        for model in models:
            await loader.load(model)
        if ports.admin is not None:
            await admin_server.start()
            logger.info("AdminService on %s:%d", options.admin_host, ports.admin)
        readiness.set(True, "")
        await health.refresh()
        logger.info("ready")
        if options.json and not stop.is_set():
            announce(options.host, ports, models)
        await stop.wait()
        await drain(options.grace_s)
    finally:
        reloading.cancel()
        watching.cancel()
        health.close()
        await asyncio.gather(server.stop(FAREWELL_S), admin_server.stop(grace=0))
        http.should_exit = True
        await http_task
        service.close()
        for model in models:
            await asyncio.to_thread(model.close)
        pool.shutdown()
        if recorder is not None:
            await asyncio.to_thread(recorder.close)
        await asyncio.to_thread(tracing.close)


def create_grpc_server(max_message_bytes: int, gatekeeper: Gatekeeper) -> grpc.aio.Server:
    """A gRPC server without services, for messages of at most so many bytes."""
    return grpc.aio.server(
        interceptors=[gatekeeper, UndecodableInterceptor()],  # in this order
        options=[
            ("grpc.so_reuseport", 0),  # or a second server would share the port without a word
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", 30_000),  # finds clients that vanished without a goodbye
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # and lets clients look for us as often
        ],
    )


async def reload_when_told(
    told: asyncio.Event, loader: ModelLoader, sessions: Sessions, protection: Protection
) -> None:
    """Reads the tokens and the bundles again each time, until it is cancelled."""
    while True:
        await told.wait()
        told.clear()
        if protection.clients is not None:
            protection.clients.reload()
            sessions.end_unknown(protection.clients)
        logger.info("reading the bundles again")
        for model, retired in await loader.refresh():
            announce_reload(sessions, model, retired)


def listen(server: grpc.aio.Server, host: str, port: int, protection: Protection) -> int:
    """Binds the gRPC server and returns its port.

    Raises:
        AddressError: if it is taken or not ours.
    """
    try:
        # asked for first: gRPC itself would write its own lines to stderr
        bind(host, port).close()
        if protection.certificates is not None:
            return server.add_secure_port(f"{host}:{port}", protection.certificates.grpc_credentials())
        return server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise AddressError(f"cannot listen on {host}:{port}: is another server running there?") from error


def announce(host: str, ports: Ports, models: Models) -> None:
    """Writes where the server is, for machines."""
    document = {
        "host": host,
        "port": ports.grpc,
        "http_port": ports.http,
        "admin_port": ports.admin,
        "models": [model.label for model in models],
    }
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Runs the command."""
    options = tyro.cli(ServerOptions, prog="python -m serving.server", description=__doc__)
    set_up_logs(options.log_format)
    try:
        options.check()
        protection = open_protection(options)
        models = read_models(options)
        tracing = open_tracing(options.trace, every=options.trace_every, service="flowseg-server")
        recorder = open_recorder(options)
    except ValueError as error:
        return refuse(error)
    try:
        asyncio.run(serve(options, models, recorder, protection, tracing))
    except (AddressError, BundleError) as error:
        return refuse(error)
    return 0


def refuse(error: Exception) -> int:
    """Says what the user got wrong, and gives the exit status for it."""
    sys.stderr.write(f"{error}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
