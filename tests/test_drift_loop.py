"""From a camera that drifts to a bundle that was adapted to it, in a server that goes on: the README's commands."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from export.baseline import CLIP_FRAMES as BASELINE_FRAMES
from export.to_onnx import export_bundle
from serving.bundle import read_bundle
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.options import ServerOptions
from tests.serving.conftest import ServerProcess, open_admin_stub, open_stub, start_server, wait_until
from tests.serving.conversations import (
    Call,
    Conversation,
    configuration,
    converse,
    hear_out,
    heard,
    in_asyncio,
    jpeg,
    request,
    send,
)
from training.command_line import Machine
from training.data import VideoFolder, World
from training.data.world.dataset import clip_seed
from training.data.world.render import render_clip
from training.pipeline import Options, run_pipeline
from training.recipe import NamedRecipe, Recipe
from training.recipes import RECIPES
from training.recipes.demo import DEMO_RECIPES

SIZE = (64, 128)  # height and width in pixels
NUM_FRAMES = 60
CLIP_FRAMES = 12


def tiny(recipe: Recipe) -> Recipe:
    """The same on four small clips: stage one in 20 steps, all else in one."""

    def shrink(data: Any) -> Any:  # Any: one of the data sets of the demo
        return replace(data, size=SIZE, num_clips=4)

    return replace(
        recipe,
        source=shrink(recipe.source),
        target=shrink(recipe.target),
        validation=replace(recipe.validation, data=shrink(recipe.validation.data)),
        steps=20 if recipe is DEMO_RECIPES["demo-source-only-one"].recipe else 1,
    )


@pytest.fixture
def tiny_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, named in DEMO_RECIPES.items():
        monkeypatch.setitem(RECIPES, name, NamedRecipe(named.description, tiny(named.recipe)))


def street(clip: int) -> list[NDArray[np.uint8]]:
    """A camera in one of the streets that the baseline is measured on."""
    target = RECIPES["demo"].recipe.target
    assert isinstance(target, World)
    return list(render_clip(clip_seed(target.seed, "val", clip), target.look, SIZE, NUM_FRAMES).frames)


def in_infrared(frames: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """The same after dusk, when the camera changes: grey, and dark where it was bright."""
    return [255 - np.repeat(frame.mean(2, keepdims=True), 3, axis=2).astype(np.uint8) for frame in frames]


def sent(frames: list[NDArray[np.uint8]]) -> Iterator[pb.SegmentStreamRequest]:
    yield configuration(format={"encoding": "FRAME_ENCODING_JPEG"})
    for sequence, frame in enumerate(frames):
        yield request(sequence, jpeg(frame[..., ::-1]))


def last_drift(conversation: Conversation) -> float:
    return conversation.results[-1].quality.drift


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_demo")
def test_a_camera_that_drifts_gets_a_model_that_was_adapted_to_it(tmp_path: Path) -> None:
    before = run_pipeline(Options(recipe="demo-source-only-one", out=tmp_path / "runs", machine=Machine("cpu")))
    export_bundle(before, tmp_path / "bundle", [SIZE], "street", "1")
    drifted = tmp_path / "drifted"
    options = ("--record-drift", str(drifted), "--record-drift-frames", str(CLIP_FRAMES), "--admin-port", "0")
    root = ("--bundle-root", str(tmp_path))
    with start_server(tmp_path / "log", str(tmp_path / "bundle"), *options, *root) as server:
        in_asyncio(close_the_loop)(server, tmp_path, drifted)


async def close_the_loop(server: ServerProcess, tmp_path: Path, drifted: Path) -> None:
    by_day, by_night = street(0), in_infrared(street(1))
    known = await converse(server.address, *sent(by_day))
    assert 0 < last_drift(known) < ServerOptions.drift_threshold
    async with grpc.aio.insecure_channel(server.address) as channel:
        old: Call = open_stub(channel).SegmentStream()
        await send(old, *sent(by_day[:1]))
        await heard(old, "started")
        await heard(old, "result")
        assert list(drifted.glob("*/*")) == []

        drifting = await converse(server.address, *sent(by_night))
        assert last_drift(drifting) > ServerOptions.drift_threshold
        wait_until(lambda: list(drifted.glob("street@1/stream-3-*/clip.json")) != [])
        (clip,) = drifted.glob("*/*")
        frames = VideoFolder(drifted, size=SIZE, num_frames=CLIP_FRAMES).open()[0].frames  # as training reads them
        first = next(
            place
            for place, result in enumerate(drifting.results)
            if result.quality.drift > ServerOptions.drift_threshold
        )
        shown = [np.asarray(frame).transpose(1, 2, 0) * 255 for frame in frames]
        for image, frame in zip(shown, by_night[first:], strict=False):
            assert np.abs(image - frame).mean() < 6  # JPEG

        videos = Options(recipe="demo-sfc-one", videos=drifted, out=tmp_path / "readapted", machine=Machine("cpu"))
        export_bundle(run_pipeline(videos), tmp_path / "readapted" / "bundle", [SIZE], "street", "2")
        baseline = read_bundle(tmp_path / "readapted" / "bundle").manifest.baseline
        assert baseline is not None
        assert baseline.domains["target"].clip_frames == BASELINE_FRAMES
        assert baseline.domains["target"].frames == (CLIP_FRAMES - BASELINE_FRAMES + 1) * (BASELINE_FRAMES - 1)

        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.admin_port}") as admin:
            new_bundle = str(tmp_path / "readapted" / "bundle")
            loaded = await open_admin_stub(admin).LoadModel(pb.LoadModelRequest(bundle=new_bundle))
        assert list(loaded.retired) == ["street@1"]
        adapted = await converse(server.address, *sent(by_night))
        assert {result.provenance.model for result in adapted.results} == {"street@2"}
        assert 0 < last_drift(adapted) < ServerOptions.drift_threshold
        assert list(drifted.glob("*/*")) == [clip]
        assert (await heard(old, "notice")).notice.model == "street@2"
        await send(old, request(1, jpeg(by_day[1][..., ::-1])))
        await old.done_writing()
        rest = await hear_out(old)
        assert [result.provenance.model for result in rest.results] == ["street@1"]
        assert rest.code == grpc.StatusCode.OK
