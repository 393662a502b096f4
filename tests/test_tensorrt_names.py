"""The fake TensorRT has nothing that one of the real ones lacks."""

import re
from pathlib import Path

import pytest

from tests import fake_tensorrt

ROOT = Path(__file__).parents[1]
SHARED = set((ROOT / "tests" / "tensorrt_names.txt").read_text().split())  # of 10.0.1, 10.16.1.11 and 11.4.0.106
FILES = ("export/tensorrt_engines.py", "serving/runtimes/tensorrt_runtime.py")


@pytest.mark.parametrize("name", fake_tensorrt.__all__)
def test_the_fake_is_made_of_names_that_both_majors_have(name: str) -> None:
    faked = getattr(fake_tensorrt, name)
    if not isinstance(faked, type):
        assert name in SHARED
        return
    members = [member for member in vars(faked) if not member.startswith("_")]
    assert {f"{name}.{member}" for member in members} - {f"{name}.name", f"{name}.value"} <= SHARED | {"ITensor.name"}


@pytest.mark.parametrize("file", FILES)
def test_the_code_takes_from_the_module_what_the_fake_has(file: str) -> None:
    taken = set(re.findall(r"\btrt\.(\w+)", (ROOT / file).read_text()))
    assert taken
    assert taken <= set(fake_tensorrt.__all__)


@pytest.mark.parametrize(
    "gone",
    [
        "BuilderFlag.FP16", "BuilderFlag.INT8", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
        "Builder.platform_has_fast_fp16", "IBuilderConfig.int8_calibrator", "ICudaEngine.device_memory_size",
        "ITensor.set_dynamic_range",
    ],
)  # fmt: skip
def test_what_11_removed_is_not_there(gone: str) -> None:
    assert gone not in SHARED
    owner, name = gone.split(".")
    with pytest.raises(AttributeError):
        getattr(getattr(fake_tensorrt, owner), name)


def test_an_attribute_that_the_real_classes_lack_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        fake_tensorrt.IBuilderConfig().max_workspace_size = 1  # type: ignore[attr-defined]  # that is the point
