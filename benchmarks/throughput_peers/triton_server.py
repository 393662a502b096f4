"""Triton by PyTriton with the per-frame network, streamed over Triton's ModelStreamInfer.

Its wheel brings no ONNX backend, so the graph runs behind Triton's Python backend: two instances, which share one
graph, so that one decodes while the other runs.
"""

import signal
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.throughput_peers.network import WORKERS, Network, server_options


def serve() -> None:
    """Serves until it is told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that Triton itself is ended
    options = server_options()
    network = Network(options)
    http_port, metrics_port = options.spare_ports

    def segment(requests: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {"labels": np.array([network.segment(request.data["frame"].item())], dtype=np.object_)}
            for request in requests
        ]

    config = TritonConfig(
        grpc_address="127.0.0.1", grpc_port=options.port, http_port=http_port, metrics_port=metrics_port,
        allow_metrics=False,
    )  # fmt: skip
    with Triton(config=config) as triton:
        triton.bind(
            model_name="per-frame",
            infer_func=[segment] * WORKERS,
            inputs=[Tensor(name="frame", dtype=np.bytes_, shape=(1,))],
            outputs=[Tensor(name="labels", dtype=np.bytes_, shape=(1,))],
            config=ModelConfig(batching=False),
        )
        triton.serve()


if __name__ == "__main__":
    serve()
