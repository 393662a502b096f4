"""The house's arrows, said to the machine."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WINGS = ("training", "export", "serving", "benchmarks")
ALLOWED = {  # wing -> wings it may import
    "training": set(),
    "serving": set(),
    "export": {"training", "serving"},
    "benchmarks": {"training", "export", "serving"},
}
# Absent where we serve.
TRAINING_ONLY = {"torch", "onnx", "onnxscript", "cattrs", "kornia", "matplotlib", "PIL", "tensorboard"}
JUNK_DRAWERS = {"utils.py", "helpers.py", "misc.py", "common.py"}


def imported_packages(path: Path) -> set[str]:
    packages = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            packages.add(str(node.module).split(".")[0])
    return packages


def sources(wing: str) -> list[Path]:
    return sorted((ROOT / wing).rglob("*.py"))


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_imports_only_the_wings_it_may(wing: str) -> None:
    assert sources(wing)
    for path in sources(wing):
        forbidden = (imported_packages(path) & set(WINGS)) - ALLOWED[wing] - {wing}
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_serving_imports_nothing_that_only_training_installs() -> None:
    for path in sources("serving"):
        if path.name == "torch_runtime.py":
            continue
        forbidden = imported_packages(path) & TRAINING_ONLY
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_the_server_and_the_client_import_with_torch_absent() -> None:
    absent = "import sys; sys.modules.update(dict.fromkeys(('torch', 'tensorrt', 'cuda', 'openvino')));"
    program = f"{absent} import serving.server, serving.client"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.parametrize("wing", WINGS)
def test_no_file_hides_a_library_and_none_is_a_junk_drawer(wing: str) -> None:
    """A script's folder is first on sys.path: `export/onnx.py` would hide onnx."""
    libraries = {"onnx", "onnxruntime", "openvino", "torch", "tensorrt", "grpc", "fastapi", "cv2"}
    libraries |= sys.stdlib_module_names
    for path in sources(wing):
        assert path.name not in JUNK_DRAWERS, path
    for path in (ROOT / wing).glob("*.py"):
        assert path.stem == "__init__" or path.stem not in libraries, path


def test_the_schema_folder_is_no_package() -> None:
    """An `__init__.py` there would hide proto-plus, whose package is called `proto`."""
    assert not list((ROOT / "proto").rglob("__init__.py"))
