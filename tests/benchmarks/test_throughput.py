import argparse
import asyncio
import base64
import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from benchmarks import throughput, throughput_environments
from benchmarks.throughput_bare import BareLoop
from benchmarks.throughput_bare import Options as BareOptions
from benchmarks.throughput_environments import SkippedError, environment_python
from benchmarks.throughput_measurement import BARE, BARE_PER_FRAME, ECHO, OURS
from benchmarks.throughput_peers.client import serve_turns
from benchmarks.throughput_peers.network import Network
from benchmarks.throughput_plan import Options, make_plan, write_frames
from benchmarks.throughput_turns import Answer
from serving.bundle import read_bundle, write_manifest
from serving.engine import open_engine
from serving.frames import Encoding, ImageDecoder
from serving.label_maps import decode_png

SMALL = "--architecture resnet10_slim/resnet10_slim --size 64x64 --precision fp32 --runtime onnxruntime"
QUICK = "--seconds 0.2 --warm-up 0 --rounds 2 --streams 2,1 --key-frames 5,adaptive --peers none"


def run_command(monkeypatch: pytest.MonkeyPatch, arguments: str, cache: Path, out: Path) -> None:
    folders = ["--cache", str(cache), "--out", str(out / "throughput")]
    monkeypatch.setattr(sys, "argv", ["throughput", *arguments.split(), *folders])
    throughput.main()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("throughput-cache")


@pytest.fixture(scope="module")
def finished(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small networks with random weights, served and measured."""
    out = tmp_path_factory.mktemp("throughput")
    with pytest.MonkeyPatch.context() as patch:
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.INFO)
        try:
            run_command(patch, f"{SMALL} {QUICK}", cache, out)
        finally:
            root.setLevel(level)
    return out


def small_plan(cache: Path, **changes: Any) -> Any:  # Any: of any option
    options = {
        "architecture": "resnet10_slim/resnet10_slim", "size": "64x64", "precision": "fp32", "runtime": "onnxruntime",
        "cache": cache, **changes,
    }  # fmt: skip
    return make_plan(Options(**options))


@pytest.mark.slow
def test_our_server_is_measured_beside_the_bare_loop_and_the_clients_alone(finished: Path) -> None:
    report = json.loads((finished / "throughput.json").read_text(encoding="utf-8"))
    found = [(row["contestant"], row["key_frames"], row["streams"], row["in_flight"]) for row in report["rows"]]
    assert found == [
        (ECHO, "5", 1, 2), (ECHO, "5", 2, 2),
        (BARE, "5", 1, 1),
        (OURS, "5", 1, 1), (OURS, "adaptive", 1, 1),
        (OURS, "5", 1, 2), (OURS, "5", 2, 2), (OURS, "adaptive", 1, 2), (OURS, "adaptive", 2, 2),
        (BARE_PER_FRAME, "1", 1, 1),
    ]  # fmt: skip
    for row in report["rows"]:
        rounds = 1 if row["contestant"] == ECHO else 2
        assert len(row["by_round"]["frames_per_s"]) == len(row["by_round"]["p50_ms"]) == rounds
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
        if row["contestant"] == OURS:
            parts = {name: part for name, part in row["where_ms"].items() if name != "client_sees"}
            assert sum(parts.values()) == pytest.approx(row["where_ms"]["client_sees"], abs=0.01)
            assert row["where_ms"]["step"] > 0
            assert row["key_frame_share"] > 0
            assert 1 <= row["batch_size"] <= row["streams"]
    assert len(report["goals"]) == 3  # without peers
    assert report["miou"] == {"ours": "untrained", "per_frame": "untrained"}


@pytest.mark.slow
def test_tables_and_a_plot_come_with_the_figures(finished: Path) -> None:
    markdown = (finished / "throughput.md").read_text(encoding="utf-8")
    assert "| flowseg | flowseg | adaptive | 2 | 2 |" in markdown
    assert "ours at interval 5 untrained" in markdown
    assert str(finished) not in markdown
    with Image.open(finished / "throughput.png") as plot:
        assert plot.format == "PNG"
    assert "wrote throughput.json" in (finished / "throughput.log").read_text(encoding="utf-8")


def test_the_bare_loop_answers_what_the_engine_answers(cache: Path, tmp_path: Path) -> None:
    plan = small_plan(cache)
    write_frames(tmp_path / "frames", plan)
    options = BareOptions(
        bundle=plan.bundle.folder, frames=tmp_path / "frames", runtime="onnxruntime", precision="fp32"
    )
    loop = BareLoop(options)
    decoder = ImageDecoder(Encoding.JPEG, None, max_pixels=1 << 20)
    interval = 3
    with (
        open_engine(plan.bundle.folder, precision="fp32", runtime="onnxruntime", threads=1) as engine,
        engine.open_stream(key_frame_interval=interval) as stream,
    ):
        for number, encoded in enumerate(plan.frames[:8]):
            expected = stream.submit(decoder.decode(encoded)).result().labels
            np.testing.assert_array_equal(decode_png(loop.answer(encoded)), expected)
            if number and number % interval == 0:
                loop.refresh()


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_peers_answer_what_the_bare_loop_answers_with_the_same_graph(
    encoding: str, cache: Path, tmp_path: Path
) -> None:
    plan = small_plan(cache, encoding=encoding)
    write_frames(tmp_path / "frames", plan)
    height, width = plan.frame_size
    bare = BareOptions(
        bundle=plan.per_frame.folder, frames=tmp_path / "frames", encoding=encoding, runtime="onnxruntime",
        precision="fp32", width=width, height=height,
    )  # fmt: skip
    options = argparse.Namespace(
        model=str(plan.per_frame_graph), runtime="onnxruntime", threads=1, encoding=encoding, width=width, height=height
    )
    expected = BareLoop(bare).answer(plan.frames[0])
    np.testing.assert_array_equal(decode_png(Network(options).segment(plan.frames[0])), decode_png(expected))


def test_frames_of_a_video_are_scaled_to_the_network_and_labels_back(cache: Path, tmp_path: Path) -> None:
    plan = small_plan(cache, encoding="raw")
    small = np.frombuffer(plan.frames[0], np.uint8).reshape(64, 64, 3)
    large = np.ascontiguousarray(small.repeat(2, 0).repeat(3, 1))
    options = argparse.Namespace(
        model=str(plan.per_frame_graph), runtime="onnxruntime", threads=1, encoding="raw", width=192, height=128
    )
    labels = decode_png(Network(options).segment(large.tobytes()))
    assert labels.shape == (128, 192)
    options.width = options.height = 64
    expected = decode_png(Network(options).segment(small.tobytes()))
    np.testing.assert_array_equal(labels[::2, ::3], expected)


def test_a_peer_that_cannot_be_installed_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").write_text("not to be run")
    monkeypatch.setattr(throughput_environments, "DEBIAN_PYTHON", tmp_path / "python")
    with pytest.raises(SkippedError, match="cannot be run: Permission denied"):
        environment_python(tmp_path / "peers", "ray", ["ray==0"])
    assert not list(tmp_path.glob("peers/*/complete"))
    stage = SimpleNamespace(plan=small_plan_stub(tmp_path), folder=tmp_path)
    rows, told = throughput.peer_phase(cast("Any", stage), "ray")
    assert rows == []
    assert told["title"].startswith("Ray Serve")
    assert "Permission denied" in told["skipped"]


def small_plan_stub(folder: Path) -> SimpleNamespace:
    options = SimpleNamespace(threads=1, encoding="jpeg", peers_dir=folder / "peers", in_flight=2)
    return SimpleNamespace(
        options=options, per_frame_graph=folder / "step.onnx", runtime="onnxruntime", frame_size=(64, 64)
    )


def test_an_environment_that_is_whole_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def note(command: list[str]) -> None:
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True)

    monkeypatch.setattr(throughput_environments, "_run", note)
    python = environment_python(tmp_path, "ray", ["ray==1"])
    assert len(commands) == 2
    assert commands[1][-1] == "ray==1"
    assert environment_python(tmp_path, "ray", ["ray==1"]) == python
    assert len(commands) == 2
    assert environment_python(tmp_path, "ray", ["ray==2"]) != python


def test_a_client_hands_over_the_first_answer(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0000").write_bytes(b"frame")

    class Stream:
        async def send(self, frame: bytes, number: int) -> None:
            assert (frame, number) == (b"frame", 0)

        async def receive(self) -> Answer:
            return Answer(b"labels")

        async def close(self) -> None:
            pass

    async def open_stream(port: int) -> Stream:
        assert port == 7
        return Stream()

    monkeypatch.setattr(sys, "argv", ["client", "--frames", str(tmp_path / "frames"), "--port", "7"])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(readline=lambda: ""))
    asyncio.run(serve_turns(open_stream))
    ready = json.loads(capsys.readouterr().out)
    assert base64.b64decode(ready["labels"]) == b"labels"


def test_a_bundle_names_its_opponent_and_what_it_was_trained_for_is_told(cache: Path, tmp_path: Path) -> None:
    plan = small_plan(cache)
    stage = {"stage": {"segmenter": {"reference": "resnet10_slim"}}}
    recipe = {"recipe": {"method": {"method": stage}}, "untrained": True}  # as of TPL around another method
    folder = plan.bundle.folder
    manifest = read_bundle(folder).manifest
    try:
        write_manifest(folder, manifest.model_copy(update={"provenance": recipe}))
        found = make_plan(Options(bundle=(folder,), precision="fp32", runtime="onnxruntime", cache=cache))
        assert found.per_frame.manifest.name == "per-frame-resnet10_slim"
        assert found.size == (64, 64)
    finally:
        write_manifest(folder, manifest)
    with pytest.raises(ValueError, match="does not say what its key frames run through: give --opponent"):
        make_plan(Options(bundle=(folder,), precision="fp32", runtime="onnxruntime", cache=cache))
    with pytest.raises(ValueError, match="no per-frame network, its step takes a state"):
        make_plan(Options(bundle=(folder,), per_frame=(folder,), precision="fp32", runtime="onnxruntime", cache=cache))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("no-bundle", "there is no bundle at no-bundle"),
        ("one two", "2 bundles are given as BUNDLE: one is compared at a time"),
        ("one --size 64x64", "--size is for a network with random weights: leave it out, or give no BUNDLE"),
        ("one --architecture resnet18/resnet18", "--architecture is for a network with random weights"),
        ("--per-frame one --opponent resnet18", "--opponent is for a network with random weights"),
        ("--precision fp16", "fp16 graphs are for GPUs and this measures the CPU: choose --precision fp32 or int8"),
        ("--architecture resnet18/vgg", "architecture 'resnet18/vgg' does not read REFERENCE/UPDATE"),
        (f"{SMALL} --opponent vgg", "there is no residual network 'vgg': give --opponent one of resnet101"),
        ("--streams 0", "--streams '0' does not read as numbers from 1 to 64, like 1,4,16"),
        ("--streams 1,65", "--streams '1,65' does not read as numbers from 1 to 64"),
        ("--key-frames often", "--key-frames 'often' does not read as intervals of 1 to 1000 frames, or adaptive"),
        ("--key-frames 0", "--key-frames '0' does not read as intervals"),
        ("--peers torchserve", "there is no peer 'torchserve': choose of mlserver, ray, triton, or none"),
        ("--in-flight 1", "--in-flight is 1: choose at least 2"),
        ("--threads 0", "--threads is 0: choose at least 1"),
        ("--rounds 0", "--rounds is 0: choose at least 1"),
        ("--seconds 0", "--seconds must be above 0"),
        ("--warm-up -1", "--warm-up not below"),
        (f"{SMALL} --video no-video.mp4", "there is no video at no-video.mp4"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: str,
    message: str,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command(monkeypatch, arguments, cache, tmp_path)
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "throughput.json").exists()
