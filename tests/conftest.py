"""What all tests share."""

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fake_tensorrt import Behaviour

# Before anything imports torch: tests run in two processes on two cores, and threads that fight are slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(params=["10.16.1.11", "11.4.0.106"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> "Behaviour":
    """A GPU that is none, with either TensorRT."""
    from tests.fake_gpu import install

    return install(monkeypatch, request.param)
