"""A segmenter whose large networks compute in half precision: what GPUs are fastest with.

The types are set in torch, before the export: tools that convert finished graphs fail on a warp or need data to decide
what may be converted. Whatever is not a large network stays in single precision: the flow, the warp, the state that
streams carry, and the tail that compares scores.
"""

import copy
import types

import torch
from torch import Tensor, nn

from training.models.deeplab import DeepLab
from training.models.distortion import Correction
from training.models.optical_flow import FlowNet
from training.models.video_segmenter import VideoSegmenter

HALF = (DeepLab, FlowNet, Correction)  # what computes in half precision; its inputs and outputs do not


def in_half_precision(segmenter: VideoSegmenter) -> VideoSegmenter:
    """A copy whose backbones and flow networks compute in float16, and take and give float32."""
    halved = copy.deepcopy(segmenter)
    for module in halved.modules():
        if isinstance(module, HALF):
            module.half()
            module.register_forward_pre_hook(_to_half)
            module.register_forward_hook(_to_single)
        if isinstance(module, FlowNet):  # hooks are for `forward` alone
            module.with_features = types.MethodType(_with_features, module)  # type: ignore[method-assign]  # on a copy
    return halved


def _with_features(network: FlowNet, current: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
    flow, features = type(network).with_features(network, current.half(), previous.half())
    return flow.to(torch.float32), features.to(torch.float32)


def _to_half(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    del module
    return tuple(tensor.half() for tensor in inputs)


def _to_single(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    del module, inputs
    return output.to(torch.float32)
