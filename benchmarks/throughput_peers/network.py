"""The per-frame network as every peer serves it: an encoded frame in, its label map as PNG out.

Decoding, scaling and encoding are done as flowseg's server does them, by OpenCV and outside the lock, so that peers
with several threads do them beside a run. One run at a time: it has as many threads as a run of ours.
"""

import argparse
import sys
import threading
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

PNG_OPTIONS = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE) if hasattr(cv2, "IMWRITE_PNG_FILTER") else ()
WORKERS = 2  # threads that segment: as many as flowseg's server has for decoding and encoding by default


def server_options() -> argparse.Namespace:
    """What every peer's server is told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the step graph, an ONNX file")
    parser.add_argument("--runtime", required=True, choices=("onnxruntime", "openvino"), help="that runs it")
    parser.add_argument("--threads", required=True, type=int, help="of one run")
    parser.add_argument("--encoding", required=True, choices=("jpeg", "raw"), help="of frames")
    parser.add_argument("--width", required=True, type=int, help="of frames, in pixels")
    parser.add_argument("--height", required=True, type=int, help="of frames, in pixels")
    parser.add_argument("--port", required=True, type=int, help="for gRPC")
    parser.add_argument("--spare-ports", required=True, type=int, nargs=2, help="for whatever else the peer opens")
    return parser.parse_args()


class Network:
    """A loaded graph."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Loads it."""
        self._encoding, self._native = options.encoding, (options.width, options.height)
        open_graph = _open_in_onnxruntime if options.runtime == "onnxruntime" else _open_in_openvino
        self._run, (self._height, self._width) = open_graph(options.model, options.threads)
        self._lock = threading.Lock()

    def segment(self, encoded: bytes) -> bytes:
        """The label map of a frame, at the frame's size."""
        native: Any  # arrays, as below
        if self._encoding == "raw":
            width, height = self._native
            native = np.frombuffer(encoded, np.uint8).reshape(height, width, 3)
        else:
            bgr: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
            native = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        height, width, _ = native.shape
        frame = native
        if (height, width) != (self._height, self._width):
            shrinks = width >= self._width and height >= self._height
            scaling = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            frame = cv2.resize(native, (self._width, self._height), interpolation=scaling)
        with self._lock:
            labels = self._run(frame[None])
        if labels.shape != (height, width):
            labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return bytes(cv2.imencode(".png", labels, PNG_OPTIONS)[1])


Run = Callable[[Any], Any]  # arrays: the peers' versions of NumPy differ, and so do its types


def _open_in_onnxruntime(path: str, threads: int) -> tuple[Run, tuple[int, int]]:
    import onnxruntime  # one of the two is installed

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as flowseg's server has it
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_inputs()]
    height, width = session.get_inputs()[0].shape[1:3]

    def run(frame: Any) -> Any:
        return session.run(["labels"], dict.fromkeys(names, frame))[0][0]

    return run, (height, width)


def _open_in_openvino(path: str, threads: int) -> tuple[Run, tuple[int, int]]:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # so that it cannot call home
    import openvino  # as above

    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}  # as flowseg's server has it
    model = openvino.Core().compile_model(path, "CPU", options)
    request = model.create_infer_request()
    names = [next(iter(port.get_names())) for port in model.inputs]
    shape = model.inputs[0].get_partial_shape()

    def run(frame: Any) -> Any:
        request.infer(dict.fromkeys(names, frame), share_inputs=True)
        return request.get_tensor("labels").data[0].copy()

    return run, (shape[1].get_length(), shape[2].get_length())
