"""Folds BatchNorm into the convolutions before it, in a program that torch exported.

ONNX's exporter does that to its graphs. Run as they are written, the layers would go through memory once more each.
"""

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_weights

CONVOLUTION = torch.ops.aten.conv2d.default  # x, weight, bias = None, ...
BATCH_NORM = torch.ops.aten.batch_norm.default  # x, weight, bias, mean, variance, is training, momentum, eps, ...


def fold_batch_norm(program: GraphModule) -> None:
    """Changes a program for inference in place; what no operation uses any more goes too, with all other such modules.

    Computed in single precision, whatever the weights are in. A convolution whose output or weight others use too is
    left alone.
    """
    for node in list(program.graph.nodes):
        if node.target is BATCH_NORM and not node.args[5] and _can_take(node.args[0]):
            _fold(program, node.args[0], node)
    program.graph.eliminate_dead_code()
    program.delete_all_unused_submodules()
    program.recompile()


def _can_take(convolution: Node) -> bool:
    if convolution.target is not CONVOLUTION or len(convolution.users) > 1:
        return False
    weight, *bias = (node for node in convolution.args[1:3] if isinstance(node, Node))
    return all(node.op == "get_attr" and len(node.users) == 1 for node in (weight, *bias))


def _fold(program: GraphModule, convolution: Node, batch_norm: Node) -> None:
    frame, weight, *rest = convolution.args
    bias = rest.pop(0) if rest else None
    values = [_value(program, node) for node in (weight, bias, *batch_norm.args[1:5])]
    kernel, shift, scale, offset, mean, variance = (None if value is None else value.float() for value in values)
    eps = batch_norm.args[7]
    assert kernel is not None
    assert mean is not None
    assert variance is not None
    assert isinstance(eps, float)
    assert isinstance(weight, Node)
    fused = fuse_conv_bn_weights(kernel, shift, mean, variance, eps, scale, offset)
    layer, _, name = str(weight.target).rpartition(".")
    half_or_single = program.get_parameter(str(weight.target)).dtype
    owner = program.get_submodule(layer)
    for key, parameter in zip((name, "folded_bias"), fused, strict=True):
        # a new one: the network that was exported holds the old
        setattr(owner, key, nn.Parameter(parameter.detach().to(half_or_single), requires_grad=False))
    with program.graph.inserting_before(convolution):
        folded_bias = program.graph.get_attr(f"{layer}.folded_bias")
    convolution.args = (frame, weight, folded_bias, *rest)
    batch_norm.replace_all_uses_with(convolution)
    program.graph.erase_node(batch_norm)


def _value(program: GraphModule, node: object) -> torch.Tensor | None:
    if node is None:
        return None
    assert isinstance(node, Node)
    value = program
    for part in str(node.target).split("."):
        value = getattr(value, part)
    assert isinstance(value, torch.Tensor)
    return value
