"""Every method goes on, after an interruption, to the weights that it would have had."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training.command_line import Machine
from training.data.world.dataset import World, WorldFlow
from training.methods.conditioned_sfc import ConditionedSfmPretraining
from training.methods.distortion_pretraining import DistortionPretraining
from training.methods.flow_ratio_pretraining import FlowRatioPretraining
from training.methods.flow_supervision import FlowSupervision
from training.methods.method import Method
from training.methods.sfm_pretraining import SfmPretraining
from training.recipe import Recipe
from training.run_directory import Run, load_checkpoint
from training.trainer import train
from training.validation import (
    DistortionValidation,
    FlowRatioValidation,
    FlowValidation,
    SegmentationValidation,
    SfmValidation,
    Validation,
)

CrashAfter = Callable[..., contextlib.AbstractContextManager[None]]
SOURCE = World(look="source", size=(32, 64), num_clips=2, num_frames=2)
FLOW = WorldFlow(look="source", size=(32, 64), num_clips=2)
HELD_OUT = replace(SOURCE, num_clips=1)
VALIDATIONS: dict[type[Method[Any]], Validation] = {  # of methods that train no segmenter
    FlowSupervision: FlowValidation(data=replace(FLOW, num_clips=1)),
    SfmPretraining: SfmValidation(data=HELD_OUT),
    ConditionedSfmPretraining: SfmValidation(data=HELD_OUT),
    FlowRatioPretraining: FlowRatioValidation(data=HELD_OUT),
    DistortionPretraining: DistortionValidation(data=HELD_OUT),
}


def no_prerequisites(name: str) -> Run:
    raise AssertionError(f"nothing starts from {name}")


def test_an_interrupted_method_ends_with_the_same_bits(
    method: Method[Any], tmp_path: Path, crash_after: CrashAfter
) -> None:
    recipe = Recipe(
        method=method,
        source=FLOW if isinstance(method, FlowSupervision) else SOURCE,
        target=replace(SOURCE, look="mid", num_frames=3),
        validation=VALIDATIONS.get(type(method), SegmentationValidation(data=HELD_OUT)),
        steps=3,
        checkpoint_every=1,
        keep_best=False,
    )

    def run(folder: str, resume: bool = False) -> dict[str, Any]:
        train("tiny", recipe, tmp_path / folder, no_prerequisites, Machine("cpu"), resume)
        return load_checkpoint(tmp_path / folder / "last.pt")

    whole = run("whole")
    with crash_after(2, type(method)):
        run("resumed")
    resumed = run("resumed", resume=True)
    for network, state in whole["networks"].items():
        for name, value in state.items():
            assert torch.equal(value, resumed["networks"][network][name]), f"{network}.{name}"
