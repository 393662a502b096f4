"""Turns an official checkpoint into a run directory: python -m training.convert OFFICIAL.pth --out RUN.

Reads the DeepLab initialisation (ImageNet, COCO), the thin FlowNetS or RAFT (or an SFM, which has the same weights),
stage one with labels alone or of SFC, PixMatch, Accel, DA-VSN, TPS and SFC's stage two. The kind, the residual networks
and the classes are read off the weights. The run can be evaluated and exported, and recipes whose runs lie beside it
can start from it: --start-from.segmenter.flownet official-flow:flow_net. Checkpoints of DA-VSN and TPS have no flow
network: give them that of another run, converted or trained, by --flow-net RUN:NETWORK.PART.

The run is finished and was not trained here: its recipe names the method whose networks these are, one step, and
stand-ins for the data, since a checkpoint has none. With VIPER's classes that is the embedded world; with SYNTHIA's,
which the world has not, the folders of the paper's recipes. Evaluate with --dataset and --root.
"""

import json
import logging
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

from training.checkpoint_file import file_sha256, read_checkpoint_file
from training.command_line import logging_to_stderr, user_errors_exit_with_2
from training.data import DataConfig, World, WorldFlow
from training.label_spaces import LABEL_SPACES
from training.methods.flow_supervision import FlowSupervision
from training.methods.method import Method
from training.methods.sfc import Sfc
from training.methods.stage import StageOne, StageTwo
from training.methods.supervised import Supervised
from training.models.accel import AccelConfig
from training.models.flownet_s import FlowNetSConfig
from training.models.official_checkpoints import (
    KINDS,
    KindName,
    StateDict,
    complete,
    contents,
    count_classes,
    detect_kind,
    recognise_backbone,
    rename,
)
from training.models.optical_flow import FlowNetConfig
from training.models.per_frame import PerFrameConfig
from training.models.raft import RaftConfig
from training.models.shared_accel import SharedAccelConfig
from training.recipe import Recipe
from training.recipes.benchmarks import BENCHMARKS
from training.run_directory import RunError, save_checkpoint, write_run_file
from training.trained_flow_net import TrainedFlowNet, trained_flow_net
from training.validation import FlowValidation, SegmentationValidation

logger = logging.getLogger(__name__)
ClassesName = Literal["viper", "synthia"]
SIZE = (512, 1024)  # height and width in pixels that the official code evaluates at
STEPS = 1  # a recipe has at least one


@dataclass(frozen=True)
class Options:
    """Options of `training.convert`."""

    checkpoint: tyro.conf.Positional[Path]  # official checkpoint file
    out: Path  # run directory to write; must not exist
    kind: KindName | Literal["auto"] = "auto"  # what the checkpoint is of; auto reads it off the names of its weights
    # benchmark whose classes the network tells apart; auto counts them, and takes viper for an initialisation
    classes: ClassesName | Literal["auto"] = "auto"
    # RUN:NETWORK.PART of a trained flow network for a checkpoint of DA-VSN or TPS, which has none: a new one otherwise
    flow_net: str | None = None
    live: bool = False  # of PixMatch, take the weights that were trained instead of their moving average
    seed: int = 0  # of the weights that a checkpoint lacks
    json: bool = False  # print what became of each weight as JSON on stdout instead of a table on stderr


@dataclass(frozen=True)
class Conversion:
    """What was converted, and what became of each weight."""

    checkpoint: str  # path of the file
    sha256: str  # of the file
    kind: KindName
    mapped: dict[str, str]  # official name -> name in the run, NETWORK.PART
    dropped: tuple[str, ...]  # official names that have no place in the run
    filled: tuple[str, ...]  # names in the run that come from --flow-net
    zeroed: tuple[str, ...]  # names in the run that this kind of checkpoint lacks; zero
    missing: tuple[str, ...]  # names in the run that this kind of checkpoint lacks; newly drawn


def convert(options: Options) -> Conversion:
    """Writes the run directory, whole or not at all.

    Raises:
        RunError: if `options.out` exists or cannot be written, or `options.flow_net` cannot be read.
        ValueError: if the file is none of the checkpoints named above, or an option cannot take effect.
    """
    _require_new(options.out)
    document = read_checkpoint_file(options.checkpoint)
    flow_net = None if options.flow_net is None else trained_flow_net(options.flow_net)
    try:
        conversion, recipe, state = _converted(options, document, flow_net)
    except ValueError as error:
        raise ValueError(f"{options.checkpoint} {error}") from error
    _write_run(options, conversion, recipe, state)
    return conversion


def _require_new(folder: Path) -> None:
    try:
        exists = folder.exists()
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error
    if exists:
        raise RunError(f"{folder} exists: choose another --out or remove it")


def _converted(
    options: Options, document: object, flow_net: TrainedFlowNet | None
) -> tuple[Conversion, Recipe, StateDict]:
    """Errors go on a sentence that the path begins."""
    official, is_pixmatch = contents(document, options.live)
    if options.live and not is_pixmatch:
        raise ValueError("holds no moving average of weights: leave out --live")
    detected = "pixmatch" if is_pixmatch else detect_kind(official)
    kind = detected if options.kind == "auto" else options.kind
    if flow_net is not None and kind != "shared-accel":
        raise ValueError(
            f"is no checkpoint of DA-VSN or TPS but {kind}, which takes no other flow network: leave out --flow-net"
        )
    renamed = rename(official, kind)
    method = _method(kind, renamed.state, FlowNetSConfig() if flow_net is None else flow_net.config)
    classes = _classes(options.classes, kind, count_classes(renamed.state))
    recipe = _recipe(method, classes, options.seed)

    torch.manual_seed(options.seed)
    networks = nn.ModuleDict(method.networks(LABEL_SPACES[classes].num_classes))
    filling = {} if flow_net is None else {f"segmenter.flownet.{name}": value for name, value in flow_net.state.items()}
    state, zeroed, missing = complete({**renamed.state, **filling}, networks.state_dict(), kind)
    if options.seed and not missing:
        raise ValueError("lacks no weight that would be drawn: leave out --seed")
    networks.load_state_dict(dict(state))
    sha256 = file_sha256(options.checkpoint)
    conversion = Conversion(
        checkpoint=str(options.checkpoint),
        sha256=sha256,
        kind=kind,
        mapped=renamed.mapped,
        dropped=renamed.dropped,
        filled=tuple(filling),
        zeroed=zeroed,
        missing=missing,
    )
    return conversion, recipe, networks.state_dict()


def _method(kind: KindName, state: StateDict, flow_net: FlowNetConfig) -> Method[Any]:
    """The method whose networks a checkpoint has (names as in the run); `flow_net` is for one that has none."""
    match kind:
        case "flownet-s":
            return FlowSupervision()
        case "raft":
            return FlowSupervision(flow_net=RaftConfig())
        case "accel":
            return Supervised(StageTwo(_accel(state)))
        case "shared-accel":
            backbone = recognise_backbone(state, "segmenter.segnet")
            return Supervised(StageTwo(SharedAccelConfig(backbone, flow_net)))
        case "sfc":
            return Sfc(StageTwo(_accel(state)))
        case "deeplab-init" | "stage-one" | "pixmatch":
            has_auxiliary = any(name.startswith("segmenter.segnet.layer5.") for name in state)
            backbone = recognise_backbone(state, "segmenter.segnet")
            return Supervised(StageOne(PerFrameConfig(backbone, has_auxiliary or kind == "deeplab-init")))


def _accel(state: StateDict) -> AccelConfig:
    return AccelConfig(
        reference=recognise_backbone(state, "segmenter.net_ref"),
        update=recognise_backbone(state, "segmenter.net_update"),
    )


def _classes(chosen: ClassesName | Literal["auto"], kind: KindName, found: int | None) -> ClassesName:
    """The benchmark with as many classes as were found in the checkpoint, or the chosen one."""
    if kind in ("flownet-s", "raft") and chosen != "auto":
        raise ValueError("is a flow network, which tells no classes apart: leave out --classes")
    if found is None:
        return "viper" if chosen == "auto" else chosen
    names: tuple[ClassesName, ...] = get_args(ClassesName)
    sizes = {name: LABEL_SPACES[name].num_classes for name in names}
    fitting = [name for name, size in sizes.items() if size == found]
    if not fitting:
        known = " nor ".join(f"the {size} of {name}" for name, size in sizes.items())
        raise ValueError(f"tells {found} classes apart, neither {known}: convert a network of one of these benchmarks")
    if chosen not in ("auto", fitting[0]):
        raise ValueError(f"tells {found} classes apart, as {fitting[0]} does: leave out --classes {chosen}")
    return fitting[0]


def _recipe(method: Method[Any], classes: ClassesName, seed: int) -> Recipe:
    """Builds the networks, and says that nothing is left to do."""
    source: DataConfig
    target: DataConfig
    world = World(split="val", size=SIZE, num_clips=4)
    match method, classes:
        case FlowSupervision(), _:
            source, target = WorldFlow(split="val", size=SIZE, num_clips=4), world
        case _, "viper":
            source, target = world, world
        case _, "synthia":
            source, target = BENCHMARKS["synthia"].source, BENCHMARKS["synthia"].target_validation
    is_flow = isinstance(method, FlowSupervision)
    return Recipe(
        method=method,
        source=source,
        target=target,
        validation=FlowValidation(data=source) if is_flow else SegmentationValidation(data=target),
        steps=STEPS,
        seed=seed,
        keep_best=False,
    )


def _write_run(options: Options, conversion: Conversion, recipe: Recipe, state: StateDict) -> None:
    folder = options.out
    networks: dict[str, dict[str, torch.Tensor]] = {}
    for path, value in state.items():
        network, _, name = path.partition(".")
        networks.setdefault(network, {})[name] = value
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        origin = {"checkpoint": options.checkpoint.name, "checkpoint_sha256": conversion.sha256}
        if options.flow_net is not None:
            origin["flow_net"] = options.flow_net
        write_run_file(aside, f"official-{conversion.kind}", recipe, origin)
        save_checkpoint(aside / "last.pt", {"step": STEPS, "measures": {}, "networks": networks})
        aside.rename(folder)
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _table(conversion: Conversion) -> Table:
    table = Table(title=f"{KINDS[conversion.kind].description}: {conversion.checkpoint}")
    table.add_column("part")
    table.add_column("weights", justify="right")
    table.add_column("became")
    for title, names in (
        ("converted", conversion.mapped.values()),
        ("dropped: no place here", conversion.dropped),
        ("taken from --flow-net", conversion.filled),
        ("zero: not in the file, or unused there", conversion.zeroed),
        ("newly drawn: not in the file", conversion.missing),
    ):
        for part, count in _parts(names).items():
            table.add_row(part, str(count), title)
    return table


def _parts(names: Iterable[str]) -> Counter[str]:
    """Numbers of weights by part of a network, classifiers apart."""
    part = re.compile(r"(.*\.)?layer[56]\b|(segmenter\.)?[^.]+")
    matches = (part.match(name) for name in names)
    return Counter(match[0] for match in matches if match is not None)


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m training.convert", description=__doc__)
    with user_errors_exit_with_2(RunError, ValueError):
        conversion = convert(options)
        if options.json:
            sys.stdout.write(json.dumps(asdict(conversion), indent=2) + "\n")
        else:
            Console(stderr=True).print(_table(conversion))
        kind = KINDS[conversion.kind]
        for remark in filter(None, (kind.remark, kind.drawn_remark if conversion.missing else "")):
            logger.warning("%s", remark)
        logger.info("wrote %s from %s", options.out, options.checkpoint)


if __name__ == "__main__":
    main()
