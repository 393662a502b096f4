from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper


@pytest.fixture(scope="session")
def copies_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that tempts a runtime to share memory: next_state = state + shift, and two copies of state."""
    nodes = [
        helper.make_node("Add", ["state", "shift"], ["next_state"]),
        helper.make_node("Identity", ["state"], ["copy"]),
        helper.make_node("Identity", ["copy"], ["copy_of_copy"]),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in names]
        for names in (("state", "shift"), ("next_state", "copy", "copy_of_copy"))
    )
    graph = helper.make_graph(nodes, "copies", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = tmp_path_factory.mktemp("graphs") / "copies.onnx"
    onnx.save(model, path)
    return path
