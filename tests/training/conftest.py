from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.data.world.dataset import World, WorldFlow
from training.methods.optimization import Adam
from training.methods.supervised import SupervisedStageOne
from training.models.per_frame import PerFrameConfig
from training.recipe import Recipe
from training.run_directory import Run
from training.trainer import train
from training.validation import SegmentationValidation

TINY = World(look="source", size=(64, 64), num_clips=4, num_frames=2)
TINY_FLOW = WorldFlow(look="source", size=(64, 64), num_clips=2)

Train = Callable[..., Run]


def no_prerequisites(name: str) -> Run:
    raise AssertionError(f"nothing starts from {name}")


@pytest.fixture
def tiny_recipe() -> Recipe:
    """Seconds of training: a slim network on four clips."""
    return Recipe(
        method=SupervisedStageOne(
            segmenter=PerFrameConfig(backbone="resnet10_slim"), optimizer=Adam(learning_rate=1e-3), forward_target=True
        ),
        source=TINY,
        target=replace(TINY, look="mid", num_frames=3),
        validation=SegmentationValidation(data=replace(TINY, look="mid", split="val", num_clips=2)),
        steps=4,
        source_batch=2,
        validate_every=2,
        keep_best=False,
    )


@pytest.fixture
def train_tiny(tiny_recipe: Recipe, tmp_path: Path) -> Train:
    """Trains the tiny recipe, with some of its fields changed."""

    def train_it(folder: str = "run", resume: bool = False, **changes: object) -> Run:
        recipe = replace(tiny_recipe, **changes)  # type: ignore[arg-type]  # fields by name
        return train("tiny", recipe, tmp_path / folder, no_prerequisites, torch.device("cpu"), resume)

    return train_it
