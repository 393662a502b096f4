"""How fast a machine multiplies at best: square matrix products, by the libraries at hand.

No graph's convolutions and matrix products can be expected to run faster than the fastest of these, so its operations
over their speed are a floor under its time. Products of 1024 x 1024 are bound by arithmetic and fit the caches. In
floating point: PyTorch's product and ONNX Runtime's MatMul, since on some processors one is twice as fast as the other.
In 8-bit integers: MatMulInteger of ONNX Runtime (unsigned times signed, as in the graphs for it) and PyTorch's product
(signed times signed), both with sums of 32 bits. A GPU takes larger products, by PyTorch, to be busy.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from serving.bundle import Precision

SIDE = 1024
GPU_SIDE = 8192


class MatrixProduct(NamedTuple):
    """One way to multiply two square matrices."""

    name: str
    precision: Precision
    run: Callable[[], object]  # returns once the product is there
    side: int = SIDE

    def giga_operations(self) -> float:
        """Billions of operations of one product."""
        return 2 * self.side**3 / 1e9


def matrix_products(device: str, threads: int) -> list[MatrixProduct]:
    """All that are tried on a device. PyTorch's number of threads is the caller's to set, see `torch_threads`."""
    return _cpu_products(threads) if device == "cpu" else gpu_products(torch.device(device), GPU_SIDE)


def gpu_products(device: torch.device, side: int) -> list[MatrixProduct]:
    """By PyTorch on a GPU. Nothing sets TF32 for matrix products, so fp32 is what it says."""

    def product(precision: Precision, dtype: torch.dtype) -> MatrixProduct:
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

        def run() -> torch.Tensor:
            result = torch.mm(left, right)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return result

        return MatrixProduct(f"PyTorch mm {precision}", precision, run, side)

    return [product("fp32", torch.float32), product("fp16", torch.float16)]


def _cpu_products(threads: int) -> list[MatrixProduct]:
    rng = np.random.default_rng(0)
    shape = (SIDE, SIDE)
    left, right = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    unsigned = rng.integers(0, 256, shape, dtype=np.uint8)
    signed_left, signed_right = (rng.integers(-127, 128, shape, dtype=np.int8) for _ in range(2))
    torch_left, torch_right = torch.from_numpy(left), torch.from_numpy(right)
    torch_signed = torch.from_numpy(signed_left), torch.from_numpy(signed_right)
    return [
        MatrixProduct("PyTorch mm", "fp32", lambda: torch.mm(torch_left, torch_right)),
        MatrixProduct("ONNX Runtime MatMul", "fp32", _onnx_product("MatMul", left, right, threads)),
        MatrixProduct("PyTorch int_mm", "int8", lambda: torch._int_mm(*torch_signed)),
        MatrixProduct(
            "ONNX Runtime MatMulInteger", "int8", _onnx_product("MatMulInteger", unsigned, signed_right, threads)
        ),
    ]


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """PyTorch computes with so many threads; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _onnx_product(operator: str, left: NDArray[Any], right: NDArray[Any], threads: int) -> Callable[[], object]:
    """Multiplies by a graph of one node. The right matrix is a constant, as weights are."""
    given = helper.make_tensor_value_info("left", helper.np_dtype_to_tensor_dtype(left.dtype), left.shape)
    kind = onnx.TensorProto.FLOAT if operator == "MatMul" else onnx.TensorProto.INT32
    product = helper.make_tensor_value_info("product", kind, (len(left), right.shape[1]))
    node = helper.make_node(operator, ["left", "right"], ["product"])
    graph = helper.make_graph([node], "product", [given], [product], [numpy_helper.from_array(right, "right")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["product"], {"left": left})
