"""Ray Serve with the per-frame network, streamed over its gRPC proxy as a call with streams both ways."""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from google.protobuf.wrappers_pb2 import BytesValue
from ray import serve
from ray.serve.config import gRPCOptions

from benchmarks.throughput_peers.network import WORKERS, Network, server_options
from benchmarks.throughput_peers.ray_protocol import METHOD


class PerFrame:
    """Takes frames, gives PNG files."""

    def __init__(self, options: Any) -> None:
        """Loads the graph."""
        self._network = Network(options)
        self._pool = ThreadPoolExecutor(WORKERS)

    async def segment(self, frames: AsyncIterator[BytesValue]) -> AsyncIterator[BytesValue]:
        """Segments the frames of a stream in their order."""
        async for frame in frames:
            loop = asyncio.get_running_loop()
            yield BytesValue(value=await loop.run_in_executor(self._pool, self._network.segment, frame.value))


def main() -> None:
    """Serves until it is told to stop."""
    options = server_options()
    http_port, _ = options.spare_ports
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        ray.init(include_dashboard=False, configure_logging=False, log_to_driver=False, _temp_dir=folder)
        serve.start(
            http_options={"host": "127.0.0.1", "port": http_port},
            grpc_options=gRPCOptions(
                port=options.port, grpc_servicer_functions=["benchmarks.throughput_peers.ray_protocol.add_to_server"]
            ),
        )
        # a call is a stream and lasts, so as many calls as there may be streams
        deployment = serve.deployment(PerFrame, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
        serve.run(deployment.bind(options), name=METHOD)
        signal.sigwait([signal.SIGTERM])
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
