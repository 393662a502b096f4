from pathlib import Path

import httpx
import pytest

from serving.bundle import SIGNALS, Baseline, DomainBaseline, DomainName, Spread, read_bundle
from serving.drift import DRIFT_SIGNALS, MIN_DEVIATION, MIN_FRAMES, DriftMeter
from serving.results import StepResult
from serving.status import Readiness, create_app
from tests.serving.conftest import serve_here, served_model, step_result, toy_baseline, write_toy_bundle
from tests.serving.conversations import configuration, converse, in_asyncio, requests

MEANS = {"mean_confidence": 0.8, "mean_entropy": 0.2, "disagreement": 0.1, "warp_residual": 0.05}
STD = 0.05


def baseline(*domains: DomainName, std: float = STD) -> Baseline:
    """Of a key frame every 5 frames. The source is where the target is not."""
    far = {name: Spread(mean=0.5, std=std) for name in SIGNALS}
    near = {name: Spread(mean=MEANS[name], std=std) for name in SIGNALS}
    every = {name: DomainBaseline(frames=160, clip_frames=11, signals=near) for name in domains}
    if len(every) > 1:
        every["source"] = DomainBaseline(frames=160, clip_frames=11, signals=far)
    return Baseline(key_frame_interval=5, measured_on="a test", domains=every)


def frame(age: int = 1, changes: dict[str, float] | None = None) -> StepResult:
    return step_result(key_frame_age=age, **(MEANS | (changes or {})))


def drift_after(meter: DriftMeter, *frames: StepResult) -> float:
    for each in frames:
        meter.observe(each)
    return meter.drift


@pytest.mark.parametrize(
    ("changes", "deviations"),
    [
        ({}, 0.0),
        ({"mean_confidence": 0.7}, 2.0),
        ({"mean_confidence": 0.95}, 3.0),
        ({"mean_entropy": 0.25}, 1.0),
        ({"mean_entropy": 0.1}, 2.0),
        ({"disagreement": 0.3}, 4.0),
        ({"disagreement": 0.0}, 0.0),  # a scene where nothing moves
        ({"warp_residual": 0.9}, 0.0),  # a scene where much moves
        ({"mean_confidence": 0.7, "mean_entropy": 0.35, "disagreement": 0.15}, 3.0),  # the largest counts
    ],
)
def test_a_drift_known_by_hand(changes: dict[str, float], deviations: float) -> None:
    frames = [frame(changes=changes)] * MIN_FRAMES
    assert drift_after(DriftMeter(baseline("target")), *frames) == pytest.approx(deviations, abs=1e-9)


def test_the_target_counts_where_it_was_at_hand_and_else_the_source() -> None:
    frames = [frame()] * MIN_FRAMES
    for domains in (("source", "target"), ("target",), ("source",)):
        assert drift_after(DriftMeter(baseline(*domains)), *frames) == pytest.approx(0, abs=1e-9)
    assert drift_after(DriftMeter(baseline()), *frames) == 0
    assert drift_after(DriftMeter(None), *frames) == 0
    assert DriftMeter(None).signals == {}


def test_there_is_no_drift_of_a_few_frames() -> None:
    meter = DriftMeter(baseline("target"))
    assert drift_after(meter, *[frame(1, {"mean_confidence": 0.3})] * (MIN_FRAMES - 1)) == 0
    assert meter.signals == {}
    assert drift_after(meter, frame(1, {"mean_confidence": 0.3})) == pytest.approx(10)
    assert meter.signals["mean_confidence"].deviations == pytest.approx(-10)


def test_frames_nearer_to_or_farther_from_their_key_frame_than_those_of_the_baseline_do_not_count() -> None:
    meter = DriftMeter(baseline("target"))
    assert drift_after(meter, *[frame(age, {"disagreement": 0.9}) for age in (0, 6, 7, 1000)] * MIN_FRAMES) == 0
    ages = (1, 2, 3, 4, 5)
    assert drift_after(meter, *[frame(age, {"disagreement": 0.9}) for age in ages] * MIN_FRAMES) == pytest.approx(16)


def test_a_running_mean_forgets_what_is_long_past() -> None:
    meter = DriftMeter(baseline("target"), memory=16)
    drift_after(meter, *[frame(1, {"mean_entropy": 0.7})] * 1000)
    assert meter.drift == pytest.approx(10)
    for frames, expected in ((16, 10 * (15 / 16) ** 16), (50, 10 * (15 / 16) ** 66)):
        assert drift_after(meter, *[frame()] * frames) == pytest.approx(expected, rel=1e-6)


def test_one_odd_frame_is_no_drift() -> None:
    meter = DriftMeter(baseline("target"))
    drift_after(meter, *[frame()] * 64)
    assert drift_after(meter, frame(1, {"mean_confidence": 0.0})) == pytest.approx(0.8 / STD / 64)


def test_scenes_that_scatter_as_the_baseline_says_stay_about_one_deviation() -> None:
    """Each stream is of one scene, so its frames are alike and their mean scatters as far as they do."""
    scenes = [MEANS["mean_confidence"] + STD * side for side in (-1, 1)]
    drifts = [drift_after(DriftMeter(baseline("target")), *[frame(1, {"mean_confidence": x})] * 200) for x in scenes]
    assert drifts == pytest.approx([1, 1])


def test_a_baseline_that_hardly_scatters_does_not_make_drift_of_nothing() -> None:
    meter = DriftMeter(baseline("target", std=0.0))
    assert drift_after(meter, *[frame(1, {"mean_confidence": 0.8 - MIN_DEVIATION})] * 64) == pytest.approx(1)


@in_asyncio
async def test_the_drift_of_a_model_is_that_of_all_its_streams(tmp_path: Path) -> None:
    """The toy's signals are the frames' values: 64 in its baseline, with a deviation of 16."""
    bundle = read_bundle(write_toy_bundle(tmp_path / "toy", baseline=toy_baseline(64)))
    async with serve_here(served_model(bundle)) as server:
        (model,) = server.models
        as_known = await converse(server.address, configuration(), *requests(*[64] * 41))
        assert [result.quality.drift for result in as_known.results] == [0.0] * 41
        assert model.drift.drift == 0
        drifting = await converse(server.address, configuration(), *requests(*[96] * 41))
        assert [result.quality.drift for result in drifting.results[-5:]] == [2.0] * 5
        assert model.drift.drift == pytest.approx(1.0)  # 40 frames of either
        assert {name: signal.mean for name, signal in model.drift.signals.items()} == pytest.approx(
            dict.fromkeys(DRIFT_SIGNALS, 80 / 256)
        )
        app = create_app(server.models, Readiness(), server.metrics)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            (listed,) = (await client.get("/v1/models")).json()["models"]
        assert listed["drift"] == pytest.approx(1.0)
        assert listed["signals"]["mean_entropy"] == {
            "mean": pytest.approx(80 / 256),
            "baseline": {"mean": 64 / 256, "std": 16 / 256},
            "deviations": pytest.approx(1.0),
        }
        assert set(listed["signals"]) == set(DRIFT_SIGNALS)
