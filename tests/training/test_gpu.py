from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.conftest import no_prerequisites
from training.command_line import Machine
from training.recipe import Recipe
from training.run_directory import Run
from training.trainer import train


@pytest.mark.gpu
def test_a_gpu_trains_the_weights_that_the_cpu_trains(tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe, steps=1)

    def weights_from(device: str) -> torch.Tensor:
        run: Run = train("tiny", recipe, tmp_path / device, no_prerequisites, Machine(device))
        return torch.cat([parameter.flatten() for parameter in run.networks()["segmenter"].parameters()])

    difference = (weights_from("cuda") - weights_from("cpu")).abs()
    # Adam's first step is as long as its learning rate, 1e-3, whatever the gradient: rounding can only turn signs.
    assert float(difference.max()) < 2.1e-3
    assert float(difference.mean()) < 1e-4
