"""MLServer with the per-frame network, streamed over ModelStreamInfer of its V2 protocol.

The model runs in MLServer's own process (no parallel workers), because its streaming asks for that.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from benchmarks.throughput_peers.network import WORKERS, Network, server_options


class PerFrame(MLModel):  # type: ignore[misc]  # without types
    """Takes a frame as BYTES, gives a PNG as BYTES."""

    async def load(self) -> bool:
        """Loads the graph."""
        self._network = Network(server_options())
        self._pool = ThreadPoolExecutor(WORKERS)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Segments one frame beside the event loop."""
        encoded = payload.inputs[0].data[0]
        png = await asyncio.get_running_loop().run_in_executor(self._pool, self._network.segment, encoded)
        labels = ResponseOutput(name="labels", shape=[1], datatype="BYTES", data=[png])
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[labels])

    async def predict_stream(self, payloads: AsyncIterator[InferenceRequest]) -> AsyncIterator[InferenceResponse]:
        """Segments the frames of a stream in their order."""
        async for payload in payloads:
            yield await self.predict(payload)


async def serve() -> None:
    """Serves until it is told to stop."""
    options = server_options()
    http_port, metrics_port = options.spare_ports
    settings = Settings(
        host="127.0.0.1", grpc_port=options.port, http_port=http_port, metrics_port=metrics_port, parallel_workers=0,
        gzip_enabled=False, debug=False,
    )  # fmt: skip
    await MLServer(settings).start([ModelSettings(name="per-frame", implementation=PerFrame)])


if __name__ == "__main__":
    asyncio.run(serve())
