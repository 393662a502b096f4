"""`tensorrt` as far as flowseg calls it, made of names that TensorRT 10 and 11 share: a call that one lacks fails.

`tensorrt_names.txt` lists what the real bindings of 10.0.1, 10.16.1.11 and 11.4.0.106 have in common of these classes;
`test_tensorrt_names.py` holds this file to it. A plan is the ONNX file with what the builder was told, and a context
runs it by ONNX Runtime on the memory of `fake_cuda.py`. Slots keep attributes out that the real classes do not have.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from tests.fake_cuda import FakeCuda

__version__ = "11.4.0.106"
MAGIC = b"fake plan\n"
Arrays = dict[str, NDArray[Any]]


@dataclass
class Behaviour:
    """What a test wants to happen."""

    cuda: FakeCuda = field(default_factory=FakeCuda)
    build_error: str = ""  # that building ends with
    capture_fails: bool = False
    spoil: Callable[[Arrays], Arrays] = field(default=lambda outputs: outputs)
    num_builds: int = 0
    num_runs: int = 0
    timing_caches: list[bytes] = field(default_factory=list)  # that builds were given


behaviour = Behaviour()


class NetworkDefinitionCreationFlag(Enum):
    STRONGLY_TYPED = 3  # not the number of either: only the name is shared

    def __int__(self) -> int:
        return self.value


class MemoryPoolType(Enum):
    WORKSPACE = 0


class BuilderFlag(Enum):
    TF32 = 7


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(Enum):
    ON_PROFILE_CHANGE = 1


class DataType(Enum):
    FLOAT = onnx.TensorProto.FLOAT
    UINT8 = onnx.TensorProto.UINT8


def nptype(trt_type: DataType) -> type[np.generic]:
    types: dict[DataType, type[np.generic]] = {DataType.FLOAT: np.float32, DataType.UINT8: np.uint8}
    return types[trt_type]


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self) -> None:
        pass

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class ITensor:
    __slots__ = ("_value",)

    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self._value = value

    @property
    def name(self) -> str:
        return self._value.name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(dim.dim_value or -1 for dim in self._value.type.tensor_type.shape.dim)

    @property
    def dtype(self) -> DataType:
        return DataType(self._value.type.tensor_type.elem_type)


class INetworkDefinition:
    __slots__ = ("_model",)

    def __init__(self) -> None:
        self._model = onnx.ModelProto()

    @property
    def num_inputs(self) -> int:
        return len(self._model.graph.input)

    def get_input(self, index: int) -> ITensor:
        return ITensor(self._model.graph.input[index])


class ParserError:
    __slots__ = ("_desc", "_node")

    def __init__(self, node: onnx.NodeProto, desc: str) -> None:
        self._node = node
        self._desc = desc

    def node_name(self) -> str:
        return self._node.name or self._node.output[0]

    def node_operator(self) -> str:
        return self._node.op_type

    def desc(self) -> str:
        return self._desc


class OnnxParser:
    __slots__ = ("_errors", "_network")

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._errors: list[ParserError] = []

    def parse_from_file(self, model: str) -> bool:
        loaded = onnx.load(model)
        self._errors = byte_errors(loaded)
        self._network._model.CopyFrom(loaded)
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


def byte_errors(model: onnx.ModelProto) -> list[ParserError]:
    """TensorRT takes and gives bytes, and does nothing with them but to make floats of them, and them of floats."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in [*inferred.input, *inferred.value_info]}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in inferred.output}
    errors = []
    for node in model.graph.node:
        taken, given = ([kinds.get(name) for name in names] for names in (node.input, node.output))
        if onnx.TensorProto.UINT8 in taken + given:
            others = {*taken, *given} - {onnx.TensorProto.UINT8}
            if node.op_type != "Cast" or others != {onnx.TensorProto.FLOAT}:
                errors.append(ParserError(node, "uint8 conversions are only supported for {float32, float16}"))
    return errors


class IOptimizationProfile:
    __slots__ = ("_shapes",)

    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:  # noqa: A002  # TensorRT's own names
        self._shapes[input] = [tuple(min), tuple(opt), tuple(max)]


class ITimingCache:
    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content


class IBuilderConfig:
    __slots__ = ("_flags", "_profiles", "_timing_cache", "_workspace")

    def __init__(self) -> None:
        self._flags = {BuilderFlag.TF32}  # on unless it is cleared, as in both
        self._profiles: list[IOptimizationProfile] = []
        self._timing_cache = ITimingCache(b"")
        self._workspace = 0

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._workspace = pool_size

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._content and not cache._content.startswith(b"timings"):
            return False
        self._timing_cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache:
        return self._timing_cache


class Builder:
    __slots__ = ("_logger",)

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == 1 << 3
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        behaviour.num_builds += 1
        behaviour.timing_caches.append(config._timing_cache._content)
        if behaviour.build_error:
            self._logger.log(ILogger.Severity.ERROR, behaviour.build_error)
            return None
        if not network._model.graph.output:
            self._logger.log(ILogger.Severity.ERROR, "at least one output is required")
            return None
        assert config._profiles
        assert config._workspace
        assert not config._flags
        for profile in config._profiles:
            assert set(profile._shapes) == {value.name for value in network._model.graph.input}
        config._timing_cache = ITimingCache(config._timing_cache._content + b"timings")
        about = {"version": __version__, "profiles": [profile._shapes for profile in config._profiles]}
        return MAGIC + json.dumps(about).encode() + b"\n" + network._model.SerializeToString()


class Runtime:
    __slots__ = ("_logger",)

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
        if not serialized_engine.startswith(MAGIC):
            self._logger.log(ILogger.Severity.ERROR, "magic tag does not match")
            return None
        about, model = serialized_engine.removeprefix(MAGIC).split(b"\n", 1)
        return ICudaEngine(json.loads(about)["profiles"], model)


class ICudaEngine:
    __slots__ = ("_model", "_outputs", "_profiles", "_session")

    def __init__(self, profiles: list[dict[str, list[list[int]]]], model: bytes) -> None:
        self._profiles = profiles
        self._model = onnx.ModelProto.FromString(model)
        self._outputs = {value.name for value in self._model.graph.output}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def _tensors(self) -> list[ITensor]:
        return [ITensor(value) for value in [*self._model.graph.input, *self._model.graph.output]]

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors())

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def get_tensor_name(self, index: int) -> str:
        return self._tensors()[index].name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.OUTPUT if name in self._outputs else TensorIOMode.INPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return next(tensor.dtype for tensor in self._tensors() if tensor.name == name)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._profiles[profile_index][name]]

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> "IExecutionContext":
        assert isinstance(strategy, ExecutionContextAllocationStrategy)
        return IExecutionContext(self)


class IExecutionContext:
    __slots__ = ("_addresses", "_engine", "_has_run", "_profile", "_shapes")

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._profile = -1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._has_run = False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        return 0 <= profile_index < self._engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, self._profile)
        self._shapes[name] = tuple(shape)
        return all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        batch = next(iter(self._shapes.values()))[0]
        return (batch, *next(tensor.shape for tensor in self._engine._tensors() if tensor.name == name)[1:])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        cuda = behaviour.cuda
        names = [tensor.name for tensor in self._engine._tensors()]
        if set(self._addresses) != set(names):
            return False
        if stream_handle in cuda.captures and (behaviour.capture_fails or not self._has_run):
            cuda.captures[stream_handle] = None
            return False
        self._has_run = True
        views = {}
        for name in names:
            shape, kind = self.get_tensor_shape(name), nptype(self._engine.get_tensor_dtype(name))
            num_bytes = int(np.prod(shape)) * np.dtype(kind).itemsize
            views[name] = cuda.view(self._addresses[name], num_bytes).view(kind).reshape(shape)
        inputs = {name: view for name, view in views.items() if name not in self._engine._outputs}
        for view in inputs.values():
            assert not any(np.shares_memory(view, views[name]) for name in self._engine._outputs)

        def run() -> None:
            behaviour.num_runs += 1
            outputs = sorted(self._engine._outputs)
            results = dict(zip(outputs, self._engine._session.run(outputs, inputs), strict=True))
            for name, result in behaviour.spoil(results).items():
                views[name][...] = result

        cuda.enqueue(stream_handle, run)
        return True


__all__ = [
    "Builder", "BuilderFlag", "DataType", "ExecutionContextAllocationStrategy", "IBuilderConfig", "ICudaEngine",
    "IExecutionContext", "ILogger", "INetworkDefinition", "IOptimizationProfile", "ITensor", "ITimingCache",
    "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser", "ParserError", "Runtime", "TensorIOMode",
    "__version__", "nptype",
]  # fmt: skip
