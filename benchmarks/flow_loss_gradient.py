"""Whether the flow loss pulls where true labels would: the cosine between the two gradients.

Both are of all the segmenter's weights, where adaptation starts, on target frames: of the flow loss as a recipe has it,
and of the cross entropy with the target's labels, which nobody trains with. BatchNorm is in training mode, as there.
"""

from collections.abc import Callable
from statistics import fmean
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch.utils.data import DataLoader

from training.data.clip import Clip, LabelledClip
from training.methods.sfc import Sfc
from training.models.video_segmenter import VideoSegmenter
from training.recipe import Recipe
from training.run_directory import Run, start_weights

BATCH, NUM_BATCHES = 4, 8  # clips of the target's training split


def gradient_cosine(recipe: Recipe, find_run: Callable[[str], Run], device: torch.device) -> float:
    """Mean over batches, -1..1, for a recipe of `Sfc` and the runs it starts from."""
    method = recipe.method
    assert isinstance(method, Sfc)
    torch.manual_seed(recipe.seed)  # of what starts from random weights
    networks = method.networks(recipe.target.num_classes)
    start_weights(networks, recipe, find_run)
    for name, network in networks.items():
        network.to(device).train(name == "segmenter").requires_grad_(name == "segmenter")
    segmenter = cast("VideoSegmenter", networks["segmenter"])
    method.optimizers(networks)  # which says what of it is trained
    weights: list[Tensor] = [weight for weight in segmenter.parameters() if weight.requires_grad]
    cosines = []
    sources, targets = (DataLoader(data.open(), BATCH) for data in (recipe.source, recipe.target))
    for _, *pair in zip(range(NUM_BATCHES), sources, targets, strict=False):
        source, target = (LabelledClip(*(each.to(device) for each in clip)) for clip in pair)
        (update,) = method.updates(networks, source, Clip(target.frames))
        levels = method.stage.levels(segmenter, target.frames)
        on_labels = method.stage.supervised_loss(segmenter, levels, target.labels[:, -1])
        of_flow, of_labels = (_gradient(loss, weights) for loss in (update.losses["flow"], on_labels))
        cosines.append(float(cosine_similarity(of_flow, of_labels, dim=0)))
    return fmean(cosines)


def _gradient(loss: Tensor, weights: list[Tensor]) -> Tensor:
    gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients]).double()
