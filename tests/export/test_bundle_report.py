import json
import subprocess
import sys
from pathlib import Path

import pytest

from export.bundle_report import describe, main, show
from serving.bundle import Bundle
from tests.export.conftest import Exported

ROOT = Path(__file__).parents[2]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["inspect", *map(str, arguments)])
    main()


def test_the_report_has_the_files_their_size_and_figures(exported: Exported) -> None:
    report = describe(exported.bundle)
    assert (report["name"], report["version"], len(report["classes"])) == ("street", "2.1", 15)
    total = sum(path.stat().st_size for path in exported.bundle.folder.glob("*.onnx"))
    assert report["megabytes"] == round(total / 1e6, 2)
    for variant, described in zip(exported.bundle.manifest.variants, report["variants"], strict=True):
        assert described["files"] == {"key": variant.key.file, "step": variant.step.file}
        assert described["runtimes"] == list(variant.runtimes)
        assert described["verification"]["label_agreement"] >= 0.9999
    assert report["dropped"] == []
    assert report["baseline"]["key_frame_interval"] == 5
    assert set(report["baseline"]["domains"]) == {"source", "target"}


def test_people_are_shown_every_variant_and_what_was_dropped(
    exported: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    verification = exported.bundle.manifest.verification | {"dropped": [{"reason": "int8 64x64 loses accuracy"}]}
    manifest = exported.bundle.manifest.model_copy(update={"verification": verification})
    show(Bundle(folder=exported.bundle.folder, manifest=manifest))
    text = capsys.readouterr().out
    for phrase in ("street@2.1", "fp32 64x64", "fp32 64x128", "onnxruntime-cpu", "tensorrt", "bicycle", "residual"):
        assert phrase in text
    assert "dropped: int8 64x64 loses accuracy" in text
    assert f"made from: run {exported.run.name}" in text


def test_machines_are_told_the_same(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, exported.bundle.folder, "--json")
    assert json.loads(capsys.readouterr().out) == describe(exported.bundle)


def test_what_is_no_bundle_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, tmp_path)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is no bundle: it has no manifest.json\n"


def test_the_command_does_not_hide_a_module_of_the_standard_library_from_scripts_beside_it(exported: Exported) -> None:
    """Scripts in export/ search that folder first, and its subfolder has the name of a module that they need."""
    for command in (["-m", "export.inspect", str(exported.bundle.folder)], ["export/to_onnx.py", "--help"]):
        finished = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
    assert not (ROOT / "export/inspect/__init__.py").exists()
