import importlib.util
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import latency
from benchmarks.arithmetic_floor import SIDE, MatrixProduct, gpu_products, matrix_products, torch_threads
from benchmarks.latency_measurement import fastest
from benchmarks.latency_report import goals
from serving.bundle import read_bundle, write_manifest

SMALL = "--architecture resnet10_slim/resnet10_slim --opponent resnet10_slim"
NETWORKS = ("accel-resnet10_slim-resnet10_slim", "per-frame-resnet10_slim")


def run_command(monkeypatch: pytest.MonkeyPatch, arguments: str, cache: Path, out: Path) -> None:
    folders = ["--cache", str(cache), "--out", str(out / "latency")]
    monkeypatch.setattr(sys, "argv", ["latency", *arguments.split(), *folders])
    latency.main()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small networks with random weights, exported and measured."""
    folder = tmp_path_factory.mktemp("latency")
    with pytest.MonkeyPatch.context() as patch:
        arguments = f"{SMALL} --precision fp32,int8 --size 64x64 --seconds 0.01 --rounds 2 --intervals 5,1"
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.INFO)  # the command sets it, but not where pytest has handlers of its own
        run_command(patch, arguments, folder / "cache", folder / "results")
        root.setLevel(level)
    return folder


def int8_bundle(finished: Path) -> Path:
    (folder,) = (finished / "cache").glob(f"{NETWORKS[0]}.int8.64x64.*")
    return folder


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "results" / "latency.json").read_text(encoding="utf-8"))
    return report


def test_each_graph_is_reported_with_its_time_its_operations_and_its_floor(finished: Path) -> None:
    (measured,) = report_of(finished)["sizes"]
    rows = measured["networks"]
    assert [(row["network"], row["precision"], list(row["graphs"])) for row in rows] == [
        (NETWORKS[0], "fp32", ["key", "step"]),
        (NETWORKS[1], "fp32", ["step"]),
        (NETWORKS[0], "int8", ["key", "step"]),
        (NETWORKS[1], "int8", ["step"]),
    ]
    for row in rows:
        for graph in row["graphs"].values():
            assert graph["runs"] >= 2
            assert 0 < graph["wall_ms"]["p50"] <= graph["wall_ms"]["p90"] <= graph["wall_ms"]["p99"]
            assert ("int8" in graph["gflop"]) == (row["precision"] == "int8")
            assert graph["floor_ms"] > 0
            assert graph["times_as_fast_as_onnxruntime_fp32"] > 0
    for fp32, int8 in zip(rows[:2], rows[2:], strict=True):
        for name, graph in fp32["graphs"].items():
            assert graph["times_as_fast_as_onnxruntime_fp32"] == 1
            total = sum(int8["graphs"][name]["gflop"].values())
            assert total == pytest.approx(graph["gflop"]["fp32"], abs=2e-3)  # two roundings


def test_frames_are_reported_by_key_frame_interval_beside_the_per_frame_network(finished: Path) -> None:
    (measured,) = report_of(finished)["sizes"]
    for row in measured["networks"]:
        assert list(row["ms_per_frame"]) == ["1", "5"]
        if row["network"] == measured["opponent"]:
            assert row["times_as_fast_as_opponent"] == {"1": 1, "5": 1}
        else:
            assert row["ms_per_frame"]["1"] > row["ms_per_frame"]["5"]
        assert row["accuracy"] == {}


def test_tables_and_a_plot_come_with_the_figures(finished: Path) -> None:
    markdown = (finished / "results" / "latency.md").read_text(encoding="utf-8")
    assert "| interval 1 | interval 5 |" in markdown
    assert f"| {NETWORKS[0]} | onnxruntime | int8 | step |" in markdown
    assert "have random weights" in markdown
    assert str(finished) not in markdown
    with Image.open(finished / "results" / "latency.png") as plot:
        assert plot.format == "PNG"
    assert "wrote latency.json" in (finished / "results" / "latency.log").read_text(encoding="utf-8")


def test_a_bundle_brings_its_accuracy_and_its_size(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = read_bundle(int8_bundle(finished))
    verified: dict[str, Any] = {"label_agreement": 0.995, "miou": 40.0, "miou_of_network": 40.25, "frames": 8}
    manifest = bundle.manifest.model_copy(update={"verification": {"variants": [verified, {}], "dropped": []}})
    write_manifest(bundle.folder, manifest)
    capsys.readouterr()
    arguments = "--opponent resnet10_slim --precision int8 --batch 2 --seconds 0.01 --rounds 2 --clock cpu --json"
    run_command(monkeypatch, f"{bundle.folder} {arguments}", finished / "cache", tmp_path)
    report = json.loads(capsys.readouterr().out)
    (measured,) = report["sizes"]
    assert measured["size"] == "64x64"
    row = measured["networks"][0]
    assert row["network"] == str(bundle.folder)
    assert row["accuracy"] == {"label_agreement": 0.995, "miou": 40.0, "miou_of_network": 40.25}
    assert "times_as_fast_as_onnxruntime_fp32" not in row["graphs"]["step"]  # there is no fp32 to compare with
    (lost,) = [goal for goal in report["goals"] if "mIoU" in goal["what"]]
    assert (lost["figure"], lost["is_met"]) == (0.25, True)
    assert "| 99.50 | 40.0 | 40.2 |" in (tmp_path / "latency.md").read_text(encoding="utf-8")


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_each_runtime_has_an_opponent_of_its_own_and_all_are_compared_with_onnx_runtime(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = f"{SMALL} --runtime onnxruntime,openvino --size 64x64 --seconds 0.01 --rounds 2"
    run_command(monkeypatch, arguments, finished / "cache", tmp_path)
    report = json.loads((tmp_path / "latency.json").read_text(encoding="utf-8"))
    rows = {(row["network"], row["runtime"]): row for row in report["sizes"][0]["networks"]}
    assert set(rows) == {(network, runtime) for network in NETWORKS for runtime in ("onnxruntime", "openvino")}
    assert rows[NETWORKS[1], "openvino"]["times_as_fast_as_opponent"]["1"] == 1
    assert rows[NETWORKS[0], "openvino"]["graphs"]["key"]["times_as_fast_as_onnxruntime_fp32"] != 1
    assert [description.split()[0] for description in report["runtimes"]] == ["ONNX", "OpenVINO"]


def test_torch_is_measured_on_programs_that_are_made_for_it_once(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = f"{SMALL} --runtime onnxruntime,torch --size 64x64 --seconds 0.01 --rounds 2"
    made = []
    for _ in range(2):
        run_command(monkeypatch, arguments, finished / "cache", tmp_path)
        programs = (tmp_path / "cache" / "flowseg" / "engines").glob("*.pt2")
        made.append({path: path.stat().st_mtime_ns for path in programs})
    assert len(made[0]) == 3
    assert made[1] == made[0]
    report = json.loads((tmp_path / "latency.json").read_text(encoding="utf-8"))
    rows = {(row["network"], row["runtime"]): row for row in report["sizes"][0]["networks"]}
    assert set(rows) == {(network, runtime) for network in NETWORKS for runtime in ("onnxruntime", "torch")}
    assert report["runtimes"][1] == f"torch {torch.__version__} on cpu"


def test_a_network_that_was_exported_is_not_exported_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "cache").rglob("*.onnx")}
    run_command(monkeypatch, f"{SMALL} --size 64x64 --seconds 0.01 --rounds 1", finished / "cache", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (finished / "cache").rglob("*.onnx")} == before


def row(network: str, precision: str, ratios: dict[str, float], ms: float, **graph: float) -> dict[str, Any]:
    return {
        "network": network,
        "runtime": "onnxruntime",
        "precision": precision,
        "graphs": {"step": {"times_floor": 1.0, **graph}},
        "ms_per_frame": {"5": 2 * ms, "10": ms},
        "times_as_fast_as_opponent": ratios,
        "accuracy": {},
    }


def test_goals_are_judged_by_what_was_measured() -> None:
    rows = [
        row("per-frame", "fp32", {"5": 1.0, "10": 1.0}, 4.0),
        row("accel", "fp32", {"5": 2.1, "10": 2.4}, 2.0, times_floor=1.2, times_as_fast_as_onnxruntime_fp32=1.0),
        row("accel", "int8", {"5": 1.9, "10": 2.5}, 1.0, times_floor=1.6, times_as_fast_as_onnxruntime_fp32=3.1),
    ]
    found = goals([{"size": "64x64", "opponent": "per-frame", "networks": rows}])
    assert [(goal["figure"], goal["wanted"], goal["is_met"]) for goal in found] == [
        (2.1, 2.0, True),
        (2.4, 2.5, False),
        (3.1, 3.0, True),
        (1.9, 2.0, False),
        (2.5, 2.5, True),
        (1.6, 1.5, False),  # of the fastest, int8
    ]


def test_matrix_products_give_matrices_and_the_fastest_of_a_precision_sets_the_floor() -> None:
    products = matrix_products("cpu", threads=1)
    results = {product.name: np.asarray(product.run()).reshape(SIDE, SIDE) for product in products}
    assert {product.precision for product in products} == {"fp32", "int8"}
    np.testing.assert_allclose(results["PyTorch mm"], results["ONNX Runtime MatMul"], rtol=0, atol=1e-2)
    assert all(results[product.name].dtype == np.int32 for product in products if product.precision == "int8")
    known = [MatrixProduct(name, precision, lambda: None) for name, precision in (("a", "fp32"), ("b", "fp32"))]  # type: ignore[arg-type]  # a literal
    slow, fast = np.array([1.0, 5.0, 1.0]), np.array([2.0, 2.0, 2.0])
    assert fastest(known, {"a": slow, "b": fast})["fp32"] is fast
    assert fastest(known, {"a": fast, "b": slow})["fp32"] is fast


def test_products_for_a_gpu_are_of_its_two_floating_point_types() -> None:
    products = gpu_products(torch.device("cpu"), side=4)
    assert [(product.precision, product.giga_operations()) for product in products] == [
        ("fp32", 128e-9),
        ("fp16", 128e-9),
    ]
    for product, dtype in zip(products, (torch.float32, torch.float16), strict=True):
        result = product.run()
        assert isinstance(result, torch.Tensor)
        assert (tuple(result.shape), result.dtype) == ((4, 4), dtype)


def test_the_number_of_threads_is_put_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "there is nothing to measure: give a BUNDLE or --architecture REFERENCE/UPDATE"),
        ("--architecture resnet101", "architecture 'resnet101' does not read REFERENCE/UPDATE, each one of resnet101"),
        ("--architecture resnet18/vgg", "architecture 'resnet18/vgg' does not read REFERENCE/UPDATE"),
        ("no-bundle", "there is no bundle at no-bundle"),
        ("NET --batch 0", "--batch is 0: choose at least 1"),
        ("NET --batch 65 --size 64x64", "--batch is 65, one run takes at most 64 frames"),
        ("NET --threads 0", "--threads is 0: choose at least 1"),
        ("NET --rounds 0", "--rounds is 0: choose at least 1"),
        ("NET --seconds 0", "--seconds is 0.0: choose more than 0"),
        ("NET --threads 2 --clock cpu", "--clock cpu adds up"),
        ("NET --intervals 0,5", "--intervals '0,5' does not read as numbers of frames, like 1,2,5,10"),
        ("NET --intervals often", "--intervals 'often' does not read as numbers of frames"),
        ("NET --precision fp16", "fp16 graphs are for GPUs and this measures the CPU: choose fp32 or int8"),
        ("NET --precision fp8", "there is no precision 'fp8'"),
        ("NET --runtime tensorrt", "'cpu' is no device for TensorRT: choose cuda or cuda:N"),
        ("NET --runtime onnx", "there is no runtime 'onnx': choose onnxruntime, openvino, tensorrt or torch"),
        ("NET --runtime torch --precision int8", "torch runs no int8 graphs: choose another --precision or --runtime"),
        ("NET --size 100x64", "size 100x64 is no multiple of 8: use --size 96x64"),
        ("BUNDLE --precision fp32", "has these graphs for onnxruntime-cpu: int8 64x64; 'fp32 64x64' picks 0 of them"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: str,
    message: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = arguments.replace("NET", SMALL).replace("BUNDLE", f"{int8_bundle(finished)} --opponent resnet10_slim")
    with pytest.raises(SystemExit) as stopped:
        run_command(monkeypatch, words, finished / "cache", tmp_path)
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "latency.json").exists()


def test_a_cache_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        run_command(monkeypatch, f"{SMALL} --size 64x64", tmp_path / "file", tmp_path)
    assert "file cannot be written (Not a directory): choose another --cache" in capsys.readouterr().err
