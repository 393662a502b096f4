import copy
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest

from export.graphs import key_graph, state_shapes, step_graph
from export.to_onnx import export_bundle, main
from export.variants import CPU, GPU
from export.verify import VerificationError
from serving.bundle import RESULTS, Bundle, file_sha256, read_bundle
from serving.engine import open_engine
from tests.export.conftest import FORMS, train_small
from training.models import SEGMENTERS
from training.models.video_segmenter import VideoSegmenter
from training.run_directory import Run, commit, load_checkpoint, save_checkpoint, write_run_file

ROOT = Path(__file__).parents[2]


class Exported(NamedTuple):
    run: Run
    bundle: Bundle


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["to_onnx.py", *map(str, arguments)])
    main()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object
) -> str:
    """The sentence with which the command stops; nothing below `folder` has changed."""
    before = contents(folder)
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, *arguments)
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1, lines
    assert contents(folder) == before
    return lines[0]


def test_the_manifest_names_the_classes_and_their_colours(exported: Exported) -> None:
    manifest = exported.bundle.manifest
    assert (manifest.name, manifest.version) == ("street", "2.1")
    space = exported.run.recipe.source.label_space
    assert [(entry.name, entry.color) for entry in manifest.classes] == [(own.name, own.color) for own in space.classes]
    assert (manifest.classes[0].name, manifest.classes[0].color) == ("road", (128, 64, 128))


def test_each_size_is_a_variant_once_and_lies_in_files_of_its_own(exported: Exported) -> None:
    variants = exported.bundle.manifest.variants
    assert [(variant.precision, variant.height, variant.width, variant.runtimes) for variant in variants] == [
        ("fp32", 64, width, runtimes) for width in (64, 128) for runtimes in (CPU, GPU)
    ]
    assert {path.name for path in exported.bundle.folder.iterdir()} == {
        "manifest.json",
        *(
            f"{graph}.64x{width}.onnx"
            for graph in ("key.fp32", "step.fp32.cpu", "step.fp32.gpu")
            for width in (64, 128)
        ),
    }


def test_the_manifest_wires_the_graphs(exported: Exported) -> None:
    segmenter = exported.run.networks()["segmenter"]
    assert isinstance(segmenter, VideoSegmenter)
    segmenter = segmenter.folded()
    names = segmenter.state_names
    frames = ("frame", "previous_frame") if segmenter.reads_previous else ("frame",)
    advanced = names if segmenter.reads_previous else ()  # DFF's state lasts until the next key frame
    for variant in exported.bundle.manifest.variants:
        expected = state_shapes(segmenter, variant.height, variant.width)
        assert [(tensor.name, tensor.shape) for tensor in variant.state] == [
            (each.name, each.shape) for each in expected
        ]
        assert variant.key.inputs == ("frame",)
        assert variant.key.outputs == names
        assert variant.step.inputs == (*frames, *names)
        assert variant.step.outputs == (*RESULTS, *(f"next_{name}" for name in advanced))
        for graph in (variant.key, variant.step):
            path = exported.bundle.path(graph)
            assert graph.sha256 == file_sha256(path)
            model = onnx.load(path).graph
            assert tuple(value.name for value in model.input) == graph.inputs
            assert tuple(value.name for value in model.output) == graph.outputs


def test_the_files_say_what_they_are(exported: Exported) -> None:
    segmenter = exported.run.networks()["segmenter"]
    assert isinstance(segmenter, VideoSegmenter)
    semantics = {} if segmenter.folded() is segmenter else {"flowseg.state_semantics": "merge_folded"}
    for variant in exported.bundle.manifest.variants:
        for kind, graph in (("key", variant.key), ("step", variant.step)):
            model = onnx.load(exported.bundle.path(graph))
            metadata = {entry.key: entry.value for entry in model.metadata_props}
            is_folded = any(tensor.name.startswith("weighted_") for tensor in variant.state)
            semantics = {"flowseg.state_semantics": "merge_folded"} if is_folded else {}
            assert metadata == {"flowseg.name": "street", "flowseg.graph": kind} | semantics


def test_the_manifest_tells_where_the_bundle_comes_from_and_how_it_was_verified(exported: Exported) -> None:
    provenance = exported.bundle.manifest.provenance
    run_file = json.loads((exported.run.folder / "run.json").read_text(encoding="utf-8"))
    assert provenance["run"] == exported.run.name
    assert provenance["recipe"] == run_file["recipe"]
    assert provenance["trained"] == run_file["provenance"]
    assert provenance["measures"] == exported.run.measures()
    assert isinstance(provenance["exported"], Mapping)
    assert provenance["exported"]["commit"] == commit()
    assert provenance["exported"]["opset"] == 19
    assert isinstance(provenance["exported"]["versions"], Mapping)
    assert {"python", "torch", "onnx"} <= set(provenance["exported"]["versions"])
    verification = exported.bundle.manifest.verification
    assert not verification["dropped"]
    for variant, figures in zip(exported.bundle.manifest.variants, verification["variants"], strict=True):
        assert figures["runtimes"] == list(variant.runtimes)
        assert (figures["precision"], figures["height"], figures["width"]) == ("fp32", variant.height, variant.width)
        assert figures["frames"] == 8
    assert str(exported.run.folder.parent) not in (exported.bundle.folder / "manifest.json").read_text(encoding="utf-8")


def test_every_size_is_served(exported: Exported) -> None:
    for size in ((64, 64), (64, 128)):
        with open_engine(exported.bundle.folder, size=size) as engine, engine.open_stream() as stream:
            answer = stream.submit(np.zeros((*size, 3), np.uint8)).result(timeout=60)
            assert answer.labels.shape == size
            assert answer.confidence.shape == (size[0] // 4, size[1] // 4)
            assert answer.labels.dtype == answer.confidence.dtype == np.uint8


def test_users_call_it_as_a_script_from_the_repository(per_frame_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "bundle"
    finished = subprocess.run(
        [sys.executable, "export/to_onnx.py", str(per_frame_run.folder), "--out", str(out), "--json"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    manifest = read_bundle(out).manifest
    assert json.loads(finished.stdout) == manifest.verification
    assert {(variant.height, variant.width) for variant in manifest.variants} == {(64, 64)}  # what was validated on
    assert "Warning" not in finished.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.name.startswith(".")] == []


def test_help_names_every_option_with_its_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, "--help")
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for phrase in ("--out", "--name", "--version", "--json", "--size HEIGHTxWIDTH", "frame size in pixels"):
        assert phrase in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--size", "100x128"], "size 100x128 is no multiple of 8: use --size 96x128"),
        (["--size", "64x64", "--size", "64x1"], "size 64x1 is no multiple of 8: use --size 64x8"),
        (["--size", "0x64"], "use --size 8x64"),
        (["--size", "large"], "size 'large' does not read HEIGHTxWIDTH, like 512x1024"),
        (["--size", "-64x64"], "does not read HEIGHTxWIDTH"),
        (["--size", "64x64x3"], "does not read HEIGHTxWIDTH"),
        (["--precision", "fp32,int4"], "there is no precision 'int4': choose from fp32, fp16, int8"),
        (["--precision", "int8", "--calibration", "{}/full"], "int8 has no frames to be calibrated on"),
        (["--precision", "int8", "--calibration", "{}/nowhere"], "choose another --calibration"),
        (["--name", "two words"], "--name 'two words' does not work"),
        (["--version", ""], "--version '' does not work"),
        (["--out", "{}/full"], "full exists: choose another --out"),
        (["--out", "{}/full/file"], "file exists: choose another --out"),
        (["--out", "{}/full/file/bundle"], "cannot be written"),
        (["--out", "{}/" + 254 * "n"], "cannot be written"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    per_frame_run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: list[str],
    sentence: str,
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("precious")
    out = [] if "--out" in options else ["--out", tmp_path / "new"]
    arguments = [option.replace("{}", str(tmp_path)) for option in options]
    # A value that starts with a hyphen must be joined to its option.
    joined = [f"{arguments[i]}={arguments[i + 1]}" for i in range(0, len(arguments), 2)]
    assert sentence in refusal(monkeypatch, capsys, tmp_path, per_frame_run.folder, *joined, *out)


def test_a_missing_run_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    message = refusal(monkeypatch, capsys, tmp_path, tmp_path / "nowhere", "--out", tmp_path / "bundle")
    assert "there is no run at" in message


def test_a_run_without_a_segmenter_is_refused(
    flow_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    message = refusal(monkeypatch, capsys, tmp_path, flow_run.folder, "--out", tmp_path / "bundle")
    assert "trained no segmenter" in message


def no_checkpoint(run: Run) -> None:
    (run.folder / "last.pt").unlink()


def one_step_of_two(run: Run) -> None:
    path = run.folder / "last.pt"
    save_checkpoint(path, {**load_checkpoint(path), "step": 1})


def half_a_checkpoint(run: Run) -> None:
    path = run.folder / "last.pt"
    path.write_bytes(path.read_bytes()[:1000])


def odd_frames(run: Run) -> None:
    data = dataclasses.replace(run.recipe.validation.data, size=(32, 60))  # type: ignore[type-var]  # a dataclass
    validation = dataclasses.replace(run.recipe.validation, data=data)
    write_run_file(run.folder, run.name, dataclasses.replace(run.recipe, validation=validation))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (no_checkpoint, "is not finished: go on with it by 'python -m training.train per_frame --out "),
        (one_step_of_two, "is not finished"),
        (half_a_checkpoint, "is not a readable checkpoint"),
        (odd_frames, "size 32x60 is no multiple of 8: use --size 32x64"),
    ],
)
def test_a_run_that_cannot_be_exported_is_refused(
    own_run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    change: Callable[[Run], None],
    sentence: str,
) -> None:
    change(own_run)
    assert sentence in refusal(monkeypatch, capsys, tmp_path, own_run.folder, "--out", tmp_path / "bundle")


def test_a_network_that_is_no_numbers_is_not_exported(
    own_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = own_run.folder / "last.pt"
    checkpoint = load_checkpoint(path)
    for weights in checkpoint["networks"]["segmenter"].values():
        if weights.is_floating_point():
            weights.fill_(float("nan"))
    save_checkpoint(path, checkpoint)
    message = refusal(monkeypatch, capsys, tmp_path, own_run.folder, "--out", tmp_path / "bundle")
    assert "scores that are not finite" in message


def test_a_bundle_that_fails_its_verification_is_not_left_on_disk(
    own_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def of_another(segmenter: VideoSegmenter, height: int, width: int) -> onnx.ModelProto:
        other = copy.deepcopy(segmenter)
        for parameter in other.parameters():
            parameter.data.neg_()
        return step_graph(other, height, width)

    monkeypatch.setattr("export.variants.step_graph", of_another)
    with pytest.raises(VerificationError, match="no bundle was written"):
        export_bundle(own_run, tmp_path / "bundle", ((64, 64),), "street", "1")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_an_interrupted_export_leaves_nothing(own_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(segmenter: VideoSegmenter, height: int, width: int) -> onnx.ModelProto:
        key_graph(segmenter, height, width)
        raise KeyboardInterrupt

    monkeypatch.setattr("export.variants.step_graph", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(own_run, tmp_path / "bundle", ((64, 64),), "street", "1")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize("name", [name for name in SEGMENTERS if name not in FORMS])
def test_every_segmenter_exports_by_the_same_command(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = train_small(name, tmp_path / "run")
    call(monkeypatch, run.folder, "--out", tmp_path / "bundle", "--size", "64x64")  # which verifies
    segmenter = run.networks()["segmenter"]
    assert isinstance(segmenter, VideoSegmenter)
    for variant in read_bundle(tmp_path / "bundle").manifest.variants:
        assert tuple(tensor.name for tensor in variant.state) == segmenter.folded().state_names
        assert variant.step.inputs == ("frame", "previous_frame", *segmenter.folded().state_names)
