"""A flow network out of a run, for a segmenter that came without one."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training.models.optical_flow import FlowNet, FlowNetConfig
from training.run_directory import RunError, read_run


class TrainedFlowNet(NamedTuple):
    """What rebuilds a trained flow network."""

    config: FlowNetConfig  # builds it
    state: dict[str, Tensor]  # its weights by name


def trained_flow_net(origin: str) -> TrainedFlowNet:
    """Reads a flow network that is named as RUN:NETWORK.PART, where RUN is a run directory.

    Raises:
        RunError: if there is no such run, if it is not finished, or has no such flow network.
        ValueError: if `origin` reads differently.
    """
    folder, _, part = origin.rpartition(":")
    if not folder or not part:
        raise ValueError(
            f"{origin!r} does not read RUN:NETWORK.PART: name a flow network as runs/flying-chairs:flow_net"
        )
    run = read_run(Path(folder))
    if not run.is_finished():
        raise RunError(f"{folder} is not finished: go on with its training, or take another run's flow network")
    modules = nn.ModuleDict(run.networks()).named_modules()
    found = {name: module for name, module in modules if isinstance(module, FlowNet)}
    if part not in found:
        raise RunError(f"{folder} has no flow network {part!r}: it has {', '.join(sorted(found)) or 'none at all'}")
    config = next(config for config in _flow_net_configs(run.recipe.method) if _builds(config, found[part]))
    return TrainedFlowNet(config, found[part].state_dict())


def _flow_net_configs(options: Any) -> Iterator[FlowNetConfig]:  # Any: whatever stands in a field of a method
    if isinstance(options, FlowNetConfig):
        yield options
    elif is_dataclass(options):
        for field in fields(options):
            yield from _flow_net_configs(getattr(options, field.name))


def _builds(config: FlowNetConfig, network: FlowNet) -> bool:
    """Whether a configuration is that of a network: a run may have several."""
    with torch.device("meta"):
        built = config.build()
    return type(built) is type(network) and _shapes(built) == _shapes(network)


def _shapes(network: FlowNet) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}
