"""The configuration of a model for Triton, as a message of Triton's own schema: what that cannot say, we cannot write.

The schema comes with Triton's client (`tritonclient`, the extra `triton`), which nothing else here needs.
"""

from typing import Any, Literal

import onnx
from google.protobuf import text_format

from export.triton_graph import START
from serving.bundle import FRAME_INPUTS, NEXT, Variant

MAX_STREAMS = 64  # sequences of one instance that are served at a time; more of them wait
MAX_IDLE_SECONDS = 60  # without a frame before a sequence is given up
Device = Literal["cpu", "cuda"]


def model_config(name: str, model: onnx.ModelProto, variant: Variant, device: Device, max_batch: int) -> str:
    """`config.pbtxt` of a graph that `triton_graph.py` made.

    Raises:
        ValueError: if the schema is not installed.
    """
    schema = import_schema()
    memory = {tensor.name for tensor in variant.state} | (FRAME_INPUTS - {"frame"})
    ours = memory | {NEXT + name for name in memory} | {START}
    config = schema.ModelConfig(name=name, backend="onnxruntime", max_batch_size=max_batch)
    for values, fields in ((model.graph.input, config.input), (model.graph.output, config.output)):
        for value in values:
            if value.name not in ours:  # the rest is between Triton and the graph
                fields.add(name=value.name, data_type=_type(schema, value), dims=_dims(value))
    kind = schema.ModelInstanceGroup.Kind.Value("KIND_CPU" if device == "cpu" else "KIND_GPU")
    config.instance_group.add(kind=kind, count=1)
    if not variant.state:
        config.dynamic_batching.SetInParent()
        return _text(schema, config)
    sequences = config.sequence_batching
    sequences.max_sequence_idle_microseconds = MAX_IDLE_SECONDS * 1_000_000
    # "direct" would give each stream a row of the batch for as long as it lasts, so four streams in all
    sequences.oldest.max_candidate_sequences = max(MAX_STREAMS, max_batch)
    control = sequences.control_input.add(name=START).control.add(bool_false_true=[False, True])
    control.kind = schema.ModelSequenceBatching.Control.CONTROL_SEQUENCE_START
    for value in model.graph.input:
        if value.name in memory:  # no initial state: the graph ignores it
            state = sequences.state.add(input_name=value.name, output_name=NEXT + value.name, dims=_dims(value))
            state.data_type = _type(schema, value)
    return _text(schema, config)


def import_schema() -> Any:  # Any: tritonclient has no types
    """The module of Triton's `model_config.proto`.

    Raises:
        ValueError: if it is missing.
    """
    try:
        from tritonclient.grpc import model_config_pb2
    except (ImportError, RuntimeError) as error:  # tritonclient makes a RuntimeError of its own missing parts
        raise ValueError(f"tritonclient is not installed ({error}): run \"pip install -e '.[triton]'\"") from error
    return model_config_pb2


def _type(schema: Any, value: onnx.ValueInfoProto) -> Any:
    names: dict[int, str] = {
        onnx.TensorProto.UINT8: "TYPE_UINT8",
        onnx.TensorProto.FLOAT: "TYPE_FP32",
        onnx.TensorProto.BOOL: "TYPE_BOOL",
    }
    return schema.DataType.Value(names[value.type.tensor_type.elem_type])


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    """Without the batch."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim[1:]]


def _text(schema: Any, config: Any) -> str:
    text = text_format.MessageToString(config)
    assert text_format.Parse(text, schema.ModelConfig()) == config
    return text
