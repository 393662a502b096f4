import sys
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from export import to_triton, triton_client
from export.triton_graph import per_frame_graph, stream_graph
from serving.bundle import RESULTS, SIGNALS, Bundle, StateTensor
from serving.engine import Engine
from serving.graphs import pick_variant
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.videos import open_video
from tests.export.conftest import Exported, Graphs
from tests.export.test_to_onnx import refusal
from tests.fake_triton import FakeTriton, Model, read_config
from training.data.world.render import render_clip

SIZE = (64, 128)
CLIPS = [render_clip(seed, "target", SIZE, 8).frames for seed in (3, 4, 5)]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["to_triton.py", *map(str, arguments)])
    to_triton.main()


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> Literal["cpu", "cuda"]:
    return request.param  # type: ignore[no-any-return]  # one of the two


@pytest.fixture(scope="module")
def written(exported: Exported, device: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a model, by the command; of the bundle's precise graphs for 64x128."""
    repository = tmp_path_factory.mktemp("triton") / "models"
    with pytest.MonkeyPatch.context() as patch:
        call(patch, exported.bundle.folder, "--out", repository, "--size", "64x128", "--device", device)
    assert [path.name for path in repository.parent.iterdir()] == ["models"]
    return repository


def answers(bundle: Bundle, device: str, clip: NDArray[np.uint8], interval: int) -> list[dict[str, Any]]:
    """What our engine says."""
    variant = pick_variant(bundle, "onnxruntime-cpu" if device == "cpu" else "onnxruntime-cuda", "fp32", SIZE)
    with (
        Engine(bundle, variant, OnnxRuntime("cpu"), max_batch=1) as engine,
        engine.open_stream(key_frame_interval=interval) as stream,
    ):
        results = [stream.submit(frame).result() for frame in clip]
    return [{name: getattr(result, name) for name in RESULTS} for result in results]


def request(
    frame: NDArray[np.uint8], sequence: int, index: int, num_frames: int, interval: int | None
) -> tuple[dict[str, NDArray[Any]], int, bool, bool]:
    inputs: dict[str, NDArray[Any]] = {"frame": frame[None]}
    if interval is not None:
        inputs["refresh"] = np.array([[index % interval == 0]])
    return inputs, sequence, index == 0, index == num_frames - 1


@pytest.mark.parametrize("intervals", [(1, 1, 1), (3, 3, 3), (1, 2, 5)], ids=str)
def test_streams_that_meet_in_batches_are_answered_as_by_the_engine(
    exported: Exported, device: str, written: Path, intervals: tuple[int, ...]
) -> None:
    """Streams start one frame after the other and end alike, so each batch has rows of all kinds."""
    model = Model(written / "street")
    remembers = bool(exported.bundle.manifest.variants[0].state)
    found: list[list[dict[str, Any]]] = [[] for _ in CLIPS]
    for time in range(len(CLIPS[0]) + len(CLIPS) - 1):
        running = [index for index in range(len(CLIPS)) if 0 <= time - index < len(CLIPS[0])]
        requests = [
            request(CLIPS[index][time - index], index + 1, time - index, 8, intervals[index] if remembers else None)
            for index in running
        ]
        for index, outputs in zip(running, model.run(requests), strict=True):
            found[index].append(outputs)
    for clip, interval, outputs_of_clip in zip(CLIPS, intervals, found, strict=True):
        for expected, outputs in zip(answers(exported.bundle, device, clip, interval), outputs_of_clip, strict=True):
            assert (expected["labels"] == outputs["labels"][0]).mean() > 0.9999
            np.testing.assert_allclose(outputs["confidence"][0].astype(int), expected["confidence"], atol=1)
            for name in SIGNALS if remembers else SIGNALS[:-1]:  # the last one compares two frames
                assert outputs[name].shape == (1, 1)
                assert outputs[name].item() == pytest.approx(expected[name], abs=1e-3)
    assert not remembers or not model.memories


def test_one_graph_goes_through_the_states_that_key_and_step_go_through(graphs: Graphs, tmp_path: Path) -> None:
    """Of a network whose answers vary: start, step, refresh, step, asked to refresh at a start."""
    key, step = onnx.load(graphs.key), onnx.load(graphs.step)
    if not graphs.segmenter.state_names:
        pytest.skip("it has no state")
    state = [
        StateTensor(name=value.name, shape=tuple(side.dim_value for side in value.type.tensor_type.shape.dim[1:]))
        for value in key.graph.output
    ]
    onnx.save_model(stream_graph(key, step, state), tmp_path / "model.onnx")
    runtime = OnnxRuntime("cpu")
    merged, key_graph, step_graph = (runtime.load(path) for path in (tmp_path / "model.onnx", graphs.key, graphs.step))

    def encode(frame: NDArray[np.uint8]) -> dict[str, Any]:
        return key_graph.run([{"frame": frame}])[0]

    names = [tensor.name for tensor in state]
    memory: dict[str, Any] = {tensor.name: np.full((1, *tensor.shape), np.nan, np.float32) for tensor in state}
    previous = np.full((1, *SIZE, 3), 9, np.uint8)
    if "previous_frame" in step_graph.inputs:
        memory["previous_frame"] = previous
    expected_state: dict[str, Any] = {}
    labels = set()
    for index, (starts, refreshes) in enumerate([(1, 0), (0, 0), (0, 0), (0, 1), (0, 0), (1, 1), (0, 0)]):
        frame = CLIPS[0][index : index + 1]
        if starts:
            expected_state, previous = encode(frame), frame
        expected = step_graph.run([{"frame": frame, "previous_frame": previous, **expected_state}])[0]
        if not starts:
            expected_state = {name: expected.get(f"next_{name}", expected_state[name]) for name in names}
        if refreshes:
            expected_state = encode(frame)
        previous = frame

        flags = {"start": np.array([[bool(starts)]]), "refresh": np.array([[bool(refreshes)]])}
        outputs: dict[str, Any] = merged.run([{"frame": frame, **flags, **memory}])[0]
        memory = {name: outputs[f"next_{name}"] for name in memory}
        assert (outputs["labels"] == expected["labels"]).mean() > 0.9999
        for name in names:
            scale = np.abs(expected_state[name]).max()
            np.testing.assert_allclose(memory[name], expected_state[name], atol=1e-4 * scale)
        np.testing.assert_array_equal(memory.get("previous_frame", frame), frame)
        labels |= set(np.unique(outputs["labels"]))
    assert len(labels) > 2


def test_the_configuration_says_what_the_model_is(exported: Exported, device: str, written: Path) -> None:
    config = read_config(written / "street")
    assert (config.name, config.backend, config.max_batch_size) == ("street", "onnxruntime", 4)
    (instances,) = config.instance_group
    assert instances.kind == (instances.KIND_CPU if device == "cpu" else instances.KIND_GPU)
    outputs = {tensor.name: list(tensor.dims) for tensor in config.output}
    remembers = bool(exported.bundle.manifest.variants[0].state)
    signals = {name: [1] for name in (SIGNALS if remembers else SIGNALS[:-1])}
    assert outputs == {"labels": [64, 128], "confidence": [16, 32], **signals}
    inputs = {tensor.name: list(tensor.dims) for tensor in config.input}
    if not remembers:
        assert inputs == {"frame": [64, 128, 3]}
        assert config.HasField("dynamic_batching")
        assert not config.HasField("sequence_batching")
        return
    assert inputs == {"frame": [64, 128, 3], "refresh": [1]}
    sequences = config.sequence_batching
    assert sequences.max_sequence_idle_microseconds == 60_000_000
    assert sequences.oldest.max_candidate_sequences == 64
    (control,) = sequences.control_input
    assert (control.name, len(control.control)) == ("start", 1)
    assert control.control[0].kind == control.control[0].CONTROL_SEQUENCE_START
    variant = exported.bundle.manifest.variants[0]
    remembered = {own.name for own in variant.state} | ({"previous_frame"} & set(variant.step.inputs))
    assert {state.input_name for state in sequences.state} == remembered
    assert all(state.output_name == f"next_{state.input_name}" for state in sequences.state)


def test_the_labels_file_names_the_classes(exported: Exported, written: Path) -> None:
    names = (written / "street" / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert names == [entry.name for entry in exported.bundle.manifest.classes]


def test_the_client_writes_the_labels_of_a_video(
    exported: Exported, device: str, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that a video gives, made to fit; in folders, as lossless as labels are."""
    writer = cv2.VideoWriter(str(tmp_path / "video.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 64))
    for frame in CLIPS[0]:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    video = str(tmp_path / "video.avi")
    with FakeTriton(written) as server:
        options = ["--model", "street", "--server", server.address, "--labels", str(tmp_path / "labels")]
        monkeypatch.setattr(sys, "argv", ["triton_client.py", video, *options, "--key-frame-interval", "3"])
        triton_client.main()
        model = server.models["street"]
    read = np.stack(list(open_video(video).frames()))
    expected = answers(exported.bundle, device, read, 3)
    paths = sorted((tmp_path / "labels").iterdir())
    assert [path.name for path in paths] == [f"{index:06d}.png" for index in range(len(CLIPS[0]))]
    for path, answer in zip(paths, expected, strict=True):
        assert (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) == answer["labels"]).mean() > 0.9999
    if exported.bundle.manifest.variants[0].state:
        assert model.starts == [True] + [False] * 7
        assert model.refreshes == [index % 3 == 0 for index in range(8)]
        assert not model.memories  # the last frame said so


def test_the_client_ends_with_a_sentence_if_it_cannot_go_on(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "video.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 64))
    writer.write(CLIPS[0][0])
    writer.release()

    def client_refusal(*arguments: str) -> str:
        command = ["triton_client.py", str(tmp_path / "video.avi"), "--labels", str(tmp_path / "labels"), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stopped:
            triton_client.main()
        assert stopped.value.code == 2
        assert [path.name for path in tmp_path.iterdir()] == ["video.avi"]
        return capsys.readouterr().err

    with FakeTriton(written) as server:
        assert "unknown model other" in client_refusal("--model", "other", "--server", server.address)
    assert "does not run street" in client_refusal("--model", "street", "--server", "127.0.0.1:1")
    assert "1 or more" in client_refusal("--model", "street", "--key-frame-interval", "0")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "choose one by --precision and --size"),
        (["--size", "64x60"], "use --size 64x64"),
        (["--size", "96x96"], "picks 0 of them"),
        (["--size", "64x64", "--precision", "fp16"], "'fp16 64x64' picks 0 of them"),
        (["--size", "64x64", "--precision", "fp8"], "there is no precision 'fp8'"),
        (["--size", "64x64", "--name", "../street"], "--name '../street' does not work"),
        (["--size", "64x64", "--max-batch", "0"], "--max-batch 0 is out of range"),
    ],
    ids=str,
)
def test_what_cannot_work_is_one_sentence_and_leaves_nothing(
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    assert sentence in refusal_of(monkeypatch, capsys, tmp_path, exported.bundle.folder, *arguments)


def refusal_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, bundle: Path, *arguments: str
) -> str:
    monkeypatch.setattr("tests.export.test_to_onnx.main", to_triton.main)
    return refusal(monkeypatch, capsys, folder, bundle, "--out", folder / "models", *arguments)


def test_a_model_that_is_there_is_left_alone(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models" / "street").mkdir(parents=True)
    assert "exists" in refusal_of(monkeypatch, capsys, tmp_path, exported.bundle.folder, "--size", "64x64")


def test_a_repository_may_hold_several_models(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        call(monkeypatch, exported.bundle.folder, "--out", tmp_path / "models", "--size", "64x64", "--name", name)
        files = sorted(
            str(path.relative_to(tmp_path / "models" / name)) for path in (tmp_path / "models" / name).rglob("*")
        )
        assert files == ["1", "1/model.onnx", "config.pbtxt", "labels.txt"]
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["first", "second"]
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_a_model_that_answers_otherwise_is_not_written(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(bundle: Bundle, variant: Any) -> onnx.ModelProto:
        model = whole(bundle, variant)
        for node in model.graph.node:
            if list(node.output) == ["labels"]:
                node.op_type = "BitwiseNot"
        return model

    whole = to_triton.merged_graph
    monkeypatch.setattr(to_triton, "merged_graph", broken)
    said = refusal_of(monkeypatch, capsys, tmp_path, exported.bundle.folder, "--size", "64x64")
    assert "does not answer like" in said


def test_a_missing_client_library_is_one_sentence(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    said = refusal_of(monkeypatch, capsys, tmp_path, exported.bundle.folder, "--size", "64x64")
    assert "pip install -e '.[triton]'" in said


def test_a_network_without_state_that_looks_back_is_refused(graphs: Graphs) -> None:
    step = onnx.load(graphs.step)
    if graphs.segmenter.state_names:
        with pytest.raises(ValueError, match=r"the step graph looks at \w+.* and has no state"):
            per_frame_graph(step)
    else:
        alone = per_frame_graph(step).graph
        assert [value.name for value in alone.input] == ["frame"]
        assert {value.name for value in alone.output} == set(RESULTS) - {"warp_residual"}
