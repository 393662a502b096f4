"""The step of SFC in the order of operations of the released code, plainly: the opponent of `training_step`.

Gao et al., Semantic-Flow Consistency (SFC), AAAI 2023. Our own words for what that code does, on our networks, for one
clip of each domain: both source frames forwarded with a graph, source backward, then target; the segmentation-to-flow
module (SFM) called class by class with all classes, for the main and for the auxiliary scores, gradients of its
parameters computed although nothing trains it; probabilities of all classes kept at full resolution. Gradients
accumulate in the networks, as there. Nothing is made slower than it was, and nothing faster.
"""

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.clip import IGNORE, Clip, LabelledClip
from training.methods.method import Networks
from training.methods.sfc import Sfc
from training.models.accel import Accel
from training.models.deeplab import DeepLab
from training.models.optical_flow import FlowNet
from training.models.per_frame import PerFrame
from training.models.warping import warp


def prepare(networks: Networks) -> None:
    """Lets the frozen flow networks compute the gradients that the released code computes."""
    networks["sfm"].requires_grad_(True)
    networks["teacher_flow"].requires_grad_(True)


def stage_one_step(method: Sfc, networks: Networks, source: LabelledClip, target: Clip) -> dict[str, Tensor]:
    """Accumulates the gradients of one step in the segmentation network.

    Returns:
        The losses "source" and "flow", weighted.
    """
    segnet = cast("PerFrame", networks["segmenter"]).segnet
    previous_scores = _both_levels(segnet, source.frames[:, -2])
    main, auxiliary = _both_levels(segnet, source.frames[:, -1])
    labels = source.labels[:, -1]
    source_loss = _cross_entropy(main, labels) + method.stage.auxiliary_weight * _cross_entropy(auxiliary, labels)
    torch.autograd.backward(source_loss)
    source_loss = source_loss.detach()
    del main, auxiliary, previous_scores

    current, previous = target.frames[:, -1], target.frames[:, -2]
    previous_main, previous_auxiliary = _both_levels(segnet, previous)
    current_main, current_auxiliary = _both_levels(segnet, current)
    flow = cast("FlowNet", networks["teacher_flow"])(current, previous).detach()
    of_main = _flow_loss(method.softmax_scale, networks, flow, current_main, previous_main, current, previous)
    of_auxiliary = _flow_loss(
        method.softmax_scale, networks, flow, current_auxiliary, previous_auxiliary, current, previous
    )
    flow_loss = method.flow_weight * (of_main + method.stage.auxiliary_weight * of_auxiliary)
    torch.autograd.backward(flow_loss)
    return {"source": source_loss, "flow": flow_loss.detach()}


def stage_two_step(method: Sfc, networks: Networks, source: LabelledClip, target: Clip) -> dict[str, Tensor]:
    """Accumulates the gradients of one step in merge layer, flow network and classifiers of Accel.

    Returns:
        The losses "source" and "flow", weighted.
    """
    accel = cast("Accel", networks["segmenter"])
    source_loss = _cross_entropy(_merged(accel, source.frames[:, -1], source.frames[:, -2]), source.labels[:, -1])
    torch.autograd.backward(source_loss)
    source_loss = source_loss.detach()

    before, previous, current = target.frames[:, -3:].unbind(1)
    current_scores = _merged(accel, current, previous)
    previous_scores = _merged(accel, previous, before)
    flow = cast("FlowNet", networks["teacher_flow"])(current, previous).detach()
    flow_loss = method.flow_weight * _flow_loss(
        method.softmax_scale, networks, flow, current_scores, previous_scores, current, previous
    )
    torch.autograd.backward(flow_loss)
    return {"source": source_loss, "flow": flow_loss.detach()}


def _both_levels(segnet: DeepLab, frame: Tensor) -> tuple[Tensor, Tensor]:
    middle, deep = segnet.features(frame)
    return _enlarged(segnet.layer6(deep), 8), _enlarged(segnet.layer5(middle), 8)


def _merged(accel: Accel, current: Tensor, previous: Tensor) -> Tensor:
    reference = warp(_enlarged(accel.net_ref(previous), 2), accel.flownet(current, previous))
    updated = _enlarged(accel.net_update(current), 2)
    return _enlarged(accel.merge(torch.cat([reference, updated], dim=1)), 4)


def _flow_loss(
    scale: float,
    networks: Networks,
    flow: Tensor,
    current_scores: Tensor,
    previous_scores: Tensor,
    current: Tensor,
    previous: Tensor,
) -> Tensor:
    sfm = cast("FlowNet", networks["sfm"])
    p = torch.softmax(scale * _at_least_single(current_scores), dim=1)
    q = torch.softmax(scale * _at_least_single(previous_scores), dim=1)
    segmentation_flow = torch.zeros_like(flow)
    for category in range(p.shape[1]):
        at = slice(category, category + 1)
        segmentation_flow = segmentation_flow + sfm(p[:, at] * current, q[:, at] * previous)
    error: Tensor = torch.linalg.vector_norm(segmentation_flow - flow, dim=1)
    return error.mean()


def _enlarged(scores: Tensor, factor: int) -> Tensor:
    return F.interpolate(scores, scale_factor=float(factor), mode="bilinear", align_corners=False)


def _cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(scores, labels, ignore_index=IGNORE)


def _at_least_single(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))  # the released code knows no other precision
