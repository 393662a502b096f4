"""Installs the fake GPU: `tensorrt` and `cuda.bindings.runtime` in this process, on the host's memory."""

import sys
import types

import pytest

from tests import fake_tensorrt
from tests.fake_cuda import FakeCuda


def install(patch: pytest.MonkeyPatch, version: str = "11.4.0.106") -> fake_tensorrt.Behaviour:
    """What a machine with one GPU has. The answer tells what happened, and may be told what is to happen."""
    behaviour = fake_tensorrt.Behaviour(cuda=FakeCuda())
    patch.setattr(fake_tensorrt, "behaviour", behaviour)
    module = types.ModuleType("tensorrt")
    for name in fake_tensorrt.__all__:
        setattr(module, name, getattr(fake_tensorrt, name))
    patch.setattr(module, "__version__", version)
    bindings = types.ModuleType("cuda.bindings")
    bindings.runtime = behaviour.cuda  # type: ignore[attr-defined]  # a module made here
    patch.setitem(sys.modules, "tensorrt", module)
    patch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    patch.setitem(sys.modules, "cuda.bindings", bindings)
    return behaviour
