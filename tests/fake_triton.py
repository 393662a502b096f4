"""A gRPC server that runs a model repository as Triton is documented to: what no test here can have is the real one.

It takes from a model's folder what Triton takes, `config.pbtxt` and the graph: requests must have the inputs that the
configuration names, with its types and sizes; sequences have a memory that starts uninitialized.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import onnxruntime
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

Arrays = dict[str, NDArray[Any]]
TYPES = {"TYPE_UINT8": np.uint8, "TYPE_BOOL": np.bool_, "TYPE_FP32": np.float32}
ORT_TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(bool)": "TYPE_BOOL", "tensor(float)": "TYPE_FP32"}


def read_config(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


@dataclass
class Model:
    """A model of a repository."""

    folder: Path
    memories: dict[int, Arrays] = field(default_factory=dict)  # of each sequence
    starts: list[bool] = field(default_factory=list)  # of each frame
    refreshes: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = read_config(self.folder)
        assert self.config.name == self.folder.name
        self.session = onnxruntime.InferenceSession(
            self.folder / "1" / "model.onnx", providers=["CPUExecutionProvider"]
        )
        self._check_against_graph()

    def _check_against_graph(self) -> None:
        """Triton loads no model whose configuration is not that of its graph."""
        sequences = self.config.sequence_batching
        name_of = model_config_pb2.DataType.Name
        given = {tensor.name: (name_of(tensor.data_type), list(tensor.dims)) for tensor in self.config.input}
        made = {tensor.name: (name_of(tensor.data_type), list(tensor.dims)) for tensor in self.config.output}
        for state in sequences.state:
            given[state.input_name] = made[state.output_name] = (name_of(state.data_type), list(state.dims))
        for control in sequences.control_input:
            assert list(control.control[0].bool_false_true) == [False, True]
            given[control.name] = ("TYPE_BOOL", [1])
        for configured, values in ((given, self.session.get_inputs()), (made, self.session.get_outputs())):
            assert configured == {value.name: (ORT_TYPES[value.type], value.shape[1:]) for value in values}

    def run(self, requests: list[tuple[Arrays, int, bool, bool]]) -> list[Arrays]:
        """A batch of requests: inputs with a batch dimension of 1, sequence, whether it starts, whether it ends."""
        sequences = self.config.sequence_batching
        assert 1 <= len(requests) <= self.config.max_batch_size
        rows = []
        for inputs, sequence, starts, _ in requests:
            assert {name: (array.dtype.type, list(array.shape)) for name, array in inputs.items()} == {
                tensor.name: (TYPES[model_config_pb2.DataType.Name(tensor.data_type)], [1, *tensor.dims])
                for tensor in self.config.input
            }
            row = dict(inputs)
            for state in sequences.state:
                kind = TYPES[model_config_pb2.DataType.Name(state.data_type)]
                garbage = np.full((1, *state.dims), 77 if kind is np.uint8 else np.nan, kind)
                row[state.input_name] = garbage if starts else self.memories[sequence][state.input_name]
            for control in sequences.control_input:
                row[control.name] = np.array([[starts]])
            rows.append(row)
        names = [value.name for value in self.session.get_outputs()]
        batch = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        outputs = dict(zip(names, self.session.run(names, batch), strict=True))
        for index, (_, sequence, _, ends) in enumerate(requests):
            self.memories[sequence] = {
                state.input_name: outputs[state.output_name][index : index + 1] for state in sequences.state
            }
            if ends:
                del self.memories[sequence]
        visible = [tensor.name for tensor in self.config.output]
        return [{name: outputs[name][index : index + 1] for name in visible} for index in range(len(requests))]


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # tritonclient has no types
    """Serves a repository on a port of its own; the port is in `address`."""

    def __init__(self, repository: Path) -> None:
        self.models = {folder.name: Model(folder) for folder in repository.iterdir()}
        self._server = grpc.server(ThreadPoolExecutor(2))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802  # the service's name for it
        if request.name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {request.name}")
        return service_pb2.ModelConfigResponse(config=self.models[request.name].config)

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802  # the service's name for it
        model = self.models[request.model_name]
        kinds = {"UINT8": np.uint8, "BOOL": np.bool_}
        inputs = {
            tensor.name: np.frombuffer(content, kinds[tensor.datatype]).reshape(tuple(tensor.shape))
            for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        sequence = request.parameters["sequence_id"].int64_param
        starts, ends = (request.parameters[name].bool_param for name in ("sequence_start", "sequence_end"))
        model.starts.append(starts)
        model.refreshes.extend(inputs["refresh"][:, 0] if "refresh" in inputs else [])
        (outputs,) = model.run([(inputs, sequence, starts, ends)])
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for asked in request.outputs:
            labels = outputs[asked.name]
            response.outputs.add(name=asked.name, datatype="UINT8", shape=labels.shape)
            response.raw_output_contents.append(labels.tobytes())
        return response
