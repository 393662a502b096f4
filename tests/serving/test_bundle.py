import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.bundle import RESULTS, SIGNALS, BundleError, parse_size, read_bundle, write_manifest

Document = dict[str, Any]  # Any: JSON
Edit = Callable[[Document], object]


@pytest.fixture
def folder(toy_folder: Path, tmp_path: Path) -> Path:
    """A copy of the toy that a test may damage."""
    return Path(shutil.copytree(toy_folder, tmp_path / "toy"))


def edit_manifest(folder: Path, edit: Edit) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def refusal(folder: Path) -> str:
    """The one sentence with which a bundle is refused."""
    with pytest.raises(BundleError) as caught:
        read_bundle(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message.replace(str(folder), "BUNDLE")


def test_a_bundle_is_read_with_all_its_manifest_says(toy_folder: Path) -> None:
    bundle = read_bundle(toy_folder)
    assert (bundle.manifest.name, bundle.manifest.version) == ("toy", "1")
    assert bundle.manifest.classes[3].name == "class 3"
    assert bundle.manifest.classes[3].color == (3, 252, 1)
    (variant,) = bundle.manifest.variants
    assert bundle.path(variant.step) == toy_folder / "step.onnx"


def test_what_is_written_is_what_is_read(folder: Path) -> None:
    bundle = read_bundle(folder)
    write_manifest(folder, bundle.manifest)
    assert read_bundle(folder) == bundle


# Files


def test_a_folder_that_is_not_there_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent") == (
        "there is no bundle at BUNDLE: make one with 'python export/to_onnx.py RUN --out BUNDLE'"
    )


def test_a_file_in_place_of_the_folder_is_refused(folder: Path) -> None:
    assert refusal(folder / "key.onnx").startswith("there is no bundle at BUNDLE")


def test_a_folder_without_a_manifest_is_refused(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    assert refusal(folder) == "BUNDLE is no bundle: it has no manifest.json"


@pytest.mark.parametrize("graph", ["key.onnx", "step.onnx"])
def test_a_missing_graph_is_refused(folder: Path, graph: str) -> None:
    (folder / graph).unlink()
    assert refusal(folder) == f"BUNDLE/{graph} is missing from the bundle: export the bundle again"


@pytest.mark.parametrize("graph", ["key.onnx", "step.onnx"])
def test_a_changed_byte_is_refused(folder: Path, graph: str) -> None:
    content = bytearray((folder / graph).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / graph).write_bytes(content)
    assert refusal(folder) == (
        f"BUNDLE/{graph} does not match the manifest's SHA-256: it was changed or damaged, export it again"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "open", "binary", "deep"])
def test_a_manifest_that_is_no_json_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    message = refusal(folder)
    assert message.startswith("BUNDLE/manifest.json cannot be read as JSON (")
    assert message.endswith("): export the bundle again")


@pytest.mark.parametrize("content", ["[]", "null", '"flowseg-bundle"', "{}", '{"format": "triton"}'])
def test_json_that_is_no_manifest_is_refused(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    assert refusal(folder) == "BUNDLE/manifest.json is not the manifest of a flowseg bundle"


@pytest.mark.parametrize("version", [0, 2, "3", None])
def test_another_format_version_is_refused_before_anything_else_is_read(folder: Path, version: object) -> None:
    (folder / "manifest.json").write_text(json.dumps({"format": "flowseg-bundle", "format_version": version}))
    assert refusal(folder) == (
        f"BUNDLE has bundle format {version!r}, this server reads 3: export the bundle again with this version"
    )


# Fields


@pytest.mark.parametrize(
    "file",
    ["../key.onnx", "/etc/passwd", "a/key.onnx", "..", ".key.onnx", "", "key.onnx\n", "a\\key.onnx", "k\0y", "k" * 256],
)
def test_a_graph_file_cannot_lie_outside_the_folder(folder: Path, file: str) -> None:
    (folder.parent / "key.onnx").write_bytes((folder / "key.onnx").read_bytes())
    edit_manifest(folder, lambda document: document["variants"][0]["key"].update(file=file))
    assert refusal(folder).startswith("BUNDLE/manifest.json is not valid at variants.0.key.file: ")


@pytest.mark.parametrize(
    ("where", "edit"),
    [
        ("name", lambda document: document.update(name="two words")),
        ("name", lambda document: document.update(name="x" * 65)),
        ("version", lambda document: document.update(version="1@2")),
        ("version", lambda document: document.pop("version")),
        ("surprise", lambda document: document.update(surprise=1)),
        ("classes", lambda document: document.update(classes=[])),
        ("classes", lambda document: document.update(classes=document["classes"] * 2)),
        ("classes.0.color.1", lambda document: document["classes"][0].update(color=[0, 256, 0])),
        ("classes.0.color", lambda document: document["classes"][0].update(color=[0, 0])),
        ("variants", lambda document: document.update(variants=[])),
        ("variants.0.precision", lambda document: document["variants"][0].update(precision="fp8")),
        ("variants.0.height", lambda document: document["variants"][0].update(height=100)),
        ("variants.0.width", lambda document: document["variants"][0].update(width=0)),
        ("variants.0.key.sha256", lambda document: document["variants"][0]["key"].update(sha256="abc")),
        ("variants.0.state.0.shape.0", lambda document: document["variants"][0]["state"][0].update(shape=[0])),
        ("variants.0.state.1.name", lambda document: document["variants"][0]["state"][1].update(name="An Anchor")),
    ],
)
def test_a_field_that_cannot_be_is_named(folder: Path, where: str, edit: Edit) -> None:
    edit_manifest(folder, edit)
    assert refusal(folder).startswith(f"BUNDLE/manifest.json is not valid at {where}: ")


# Wiring


def edit_variant(folder: Path, edit: Edit) -> None:
    edit_manifest(folder, lambda document: edit(document["variants"][0]))


@pytest.mark.parametrize(
    ("message", "edit"),
    [
        (
            "the step graph takes unknown inputs ['flow', 'future_frame']",
            lambda variant: variant["step"]["inputs"].extend(["flow", "future_frame"]),
        ),
        (
            "the key graph may take 'frame' alone, not ('frame', 'previous_frame')",
            lambda variant: variant["key"]["inputs"].append("previous_frame"),
        ),
        (
            "the key graph must give the state ['anchor', 'total'], not ['total']",
            lambda variant: variant["key"]["outputs"].remove("anchor"),
        ),
        (
            "the key graph must give the state ['anchor', 'total'], not ['anchor', 'extra', 'total']",
            lambda variant: variant["key"]["outputs"].append("extra"),
        ),
        (
            f"the step graph must give {', '.join(RESULTS)} and next state tensors alone",
            lambda variant: variant["step"]["outputs"].remove("confidence"),
        ),
        (
            f"the step graph must give {', '.join(RESULTS)} and next state tensors alone",
            lambda variant: variant["step"]["outputs"].append("next_nobody"),
        ),
        (
            "names of state tensors must be unique and differ from those of frames and results",
            lambda variant: variant["state"].append(variant["state"][0]),
        ),
        (
            "names of state tensors must be unique and differ from those of frames and results",
            lambda variant: variant["state"][0].update(name="previous_frame"),
        ),
    ],
)
def test_graphs_that_do_not_fit_together_are_refused(folder: Path, message: str, edit: Edit) -> None:
    edit_variant(folder, edit)
    found = refusal(folder)
    assert found.startswith("BUNDLE/manifest.json is not valid at variants.0: ")
    assert found.endswith(message)


def test_a_baseline_has_every_signal(folder: Path) -> None:
    spread = {"mean": 0.5, "std": 0.1}
    domain = {"frames": 10, "clip_frames": 11, "signals": dict.fromkeys(SIGNALS, spread)}
    baseline = {"key_frame_interval": 5, "measured_on": "fp32", "domains": {"target": domain}}
    edit_manifest(folder, lambda document: document.update(baseline=baseline))
    read = read_bundle(folder).manifest.baseline
    assert read is not None
    assert read.domains["target"].signals["warp_residual"].std == 0.1
    edit_manifest(folder, lambda document: document["baseline"]["domains"]["target"]["signals"].pop("mean_entropy"))
    assert refusal(folder) == (
        "BUNDLE/manifest.json is not valid at baseline.domains.target: Value error, a baseline must have"
        " mean_confidence, disagreement, mean_entropy, warp_residual, not mean_confidence, disagreement, warp_residual"
    )


def test_a_step_may_advance_none_of_the_state_and_need_not_take_every_input(folder: Path) -> None:
    edit_variant(folder, lambda variant: variant["step"]["outputs"].remove("next_total"))
    edit_variant(folder, lambda variant: variant["step"]["inputs"].remove("previous_frame"))
    (variant,) = read_bundle(folder).manifest.variants
    assert variant.step.outputs == RESULTS


@pytest.mark.parametrize(("text", "size"), [("64x128", (64, 128)), ("512x1024", (512, 1024))])
def test_sizes_are_read_as_height_and_width(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "64", "64x", "x64", "64x64x3", "-8x8", "64 x 64", "0x64", "60x64"])
def test_sizes_that_no_graph_can_have_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not read HEIGHTxWIDTH|is no multiple of 8: use --size"):
        parse_size(text)
