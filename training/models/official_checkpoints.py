"""Names of weights in the released checkpoints, and their names here.

Converted weights are named as `Recipe.start_from` names parts: NETWORK.PART, such as segmenter.net_ref.conv1.weight.
Everything here is a pure function of state dicts. What a file does not hold is an error unless its kind says otherwise:
the classifiers of an initialisation, and the flow network of DA-VSN and TPS, are drawn anew; counters that old files
lack, and biases that DAVSS's flow network has none of, are zero.

PixMatch's classifiers return inside their loop, so two of the four convolutions were neither trained nor used. They
are dropped, and zero here, where all four are summed; `stage-one` instead of `pixmatch` would keep them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from training.models.deeplab import BACKBONES, BackboneName, DeepLab

StateDict = Mapping[str, Tensor]
KindName = Literal["deeplab-init", "flownet-s", "raft", "stage-one", "pixmatch", "accel", "shared-accel", "sfc"]
COUNTERS = r".*\.num_batches_tracked"  # nothing reads them; torch before 0.4.1 did not write them
CLASSIFIERS = r".*\.layer[56]\..*"
FLOW_BIASES = r"flow_net\.(deconv\d\.0|upsample_flow\dto\d)\.bias"  # DAVSS's flow network has none
UNUSED = r"layer[56]\.conv2d_list\.[23]\."  # what PixMatch's early return leaves out


@dataclass(frozen=True)
class Kind:
    """One form of official checkpoint. Patterns are regular expressions."""

    description: str
    renamed: tuple[tuple[str, str], ...]  # start of an official name -> what stands for it here; the first that fits
    dropped: str = ""  # start of official names that have no place here; empty drops none
    zeroed: str = COUNTERS  # names here that a file may lack; zero then
    drawn: str = ""  # names here that a file may lack; newly drawn then
    remark: str = ""  # what a user should know of the converted network
    drawn_remark: str = ""  # what a user should know of it if weights were drawn


_ACCEL = (
    ("net_ref.", "segmenter.net_ref."),
    ("net_update.", "segmenter.net_update."),
    ("merge.", "segmenter.merge."),
    ("flownet.", "segmenter.flownet."),
)
_SEGNET = (("segnet.", "segmenter.segnet."), ("", "segmenter.segnet."))
_AUXILIARY = r"net_(ref|update)\.layer5\."  # stage two has no auxiliary classifier

KINDS: dict[KindName, Kind] = {
    "deeplab-init": Kind(
        "DeepLab pre-trained on ImageNet and COCO", (("Scale.", "segmenter.segnet."),), r"Scale\.layer5\.",
        drawn=CLASSIFIERS,
    ),
    "flownet-s": Kind("thin FlowNetS, or an SFM", (("", "flow_net."),), zeroed=FLOW_BIASES),
    "raft": Kind("RAFT, or an SFM of its kind", (("", "flow_net."),)),
    "stage-one": Kind("DeepLab of stage one", _SEGNET),
    "pixmatch": Kind("PixMatch", (("", "segmenter.segnet."),), UNUSED, zeroed=rf"{COUNTERS}|.*\.{UNUSED}.*",
        remark="PixMatch pools with ceil_mode and aligns corners, this network does neither: scores differ a little",
    ),
    "accel": Kind("Accel", _ACCEL, _AUXILIARY),
    "shared-accel": Kind(
        "DA-VSN or TPS", (("sf_layer.", "segmenter.sf_layer."), ("", "segmenter.segnet.")),
        drawn=r"segmenter\.flownet\..*",
        remark="DA-VSN and TPS took their flow from FlowNet2: along that of another network scores differ a little",
        drawn_remark="the checkpoint has no flow network, so the past comes along the flow of a random one: give a"
        " trained one, such as --flow-net runs/flying-chairs:flow_net",
    ),
    "sfc": Kind(
        "SFC stage two", (*_ACCEL, ("flownet_global.", "teacher_flow."), ("SFM.", "sfm.")), _AUXILIARY
    ),
}  # fmt: skip
UNSUPPORTED: tuple[tuple[str, str], ...] = (  # start of a name that tells a network, and the network
    (r"upsampled_flow6_to_5\.", "the full-width FlowNetS of FlowNetPytorch"),
)
TELLING: tuple[tuple[str, KindName], ...] = (  # start of a name that tells a kind; the first that occurs decides
    (r"Scale\.", "deeplab-init"),
    (r"SFM\.", "sfc"),
    (r"net_(ref|update)\.", "accel"),
    (r"sf_layer\.", "shared-accel"),
    (r"predict_flow2\.", "flownet-s"),
    (r"(fnet|cnet|update_block)\.", "raft"),
    (r"(segnet\.)?layer6\.conv2d_list\.", "stage-one"),
)


class Contents(NamedTuple):
    """The weights in a checkpoint file."""

    state: StateDict  # official names
    is_pixmatch: bool


def contents(document: object, live: bool) -> Contents:
    """Finds the state dict in what a checkpoint file holds.

    Args:
        document: A state dict, or a dict with one under "state_dict" and perhaps a moving average under "shadow".
        live: Take "state_dict" even if there is "shadow".

    Raises:
        ValueError: if there is none.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"holds {_article(document)}, not weights by name: save the module's state_dict()")
    if "state_dict" not in document:
        if "networks" in document:
            raise ValueError("is a checkpoint of flowseg: use its run directory as it is")
        return Contents(_plain(document), is_pixmatch=False)
    has_average = "shadow" in document
    return Contents(_plain(document["shadow" if has_average and not live else "state_dict"]), has_average)


def _plain(state: object) -> StateDict:
    """A state dict of dense tensors, without the "module." of torch's DataParallel."""
    if not isinstance(state, Mapping) or not state:
        raise ValueError(
            f"holds {_article(state)} where weights by name are expected: it is no checkpoint of a network"
        )
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"holds {_article(value)} under {name!r}, not a tensor: save the module's state_dict()")
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            raise ValueError(f"holds a tensor {name!r} of another kind than plain numbers: convert it to float32 first")
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def detect_kind(names: Iterable[str]) -> KindName:
    """The kind of checkpoint that has these weights.

    Raises:
        ValueError: if no kind has, or a network has that there is no place for yet.
    """
    names = list(names)
    for pattern, network in UNSUPPORTED:
        if _any_starts(pattern, names):
            raise ValueError(f"is a checkpoint of {network}, which is not supported yet: {_choices()} are")
    for pattern, kind in TELLING:
        if _any_starts(pattern, names):
            return kind
    raise ValueError(f"has weights such as {names[0]!r}, as no official checkpoint has: {_choices()} can be converted")


def _any_starts(pattern: str, names: Iterable[str]) -> bool:
    return any(re.match(pattern, name) for name in names)


def _choices() -> str:
    *others, last = get_args(KindName)
    return f"{', '.join(others)} and {last}"


class Renamed(NamedTuple):
    """A checkpoint in the names used here."""

    state: StateDict  # NETWORK.PART names
    mapped: dict[str, str]  # official name -> name here
    dropped: tuple[str, ...]  # official names that have no place here


def rename(state: StateDict, kind: KindName) -> Renamed:
    """Names the weights of a checkpoint as they are named here."""
    rules = KINDS[kind]
    mapped, dropped = {}, []
    for name in state:
        fitting = [(start, ours) for start, ours in rules.renamed if name.startswith(start)]
        if fitting and not (rules.dropped and re.match(rules.dropped, name)):
            start, ours = fitting[0]
            mapped[name] = ours + name.removeprefix(start)
        else:
            dropped.append(name)
    return Renamed({ours: state[name] for name, ours in mapped.items()}, mapped, tuple(dropped))


class Completed(NamedTuple):
    """All weights of some networks."""

    state: StateDict  # NETWORK.PART names
    zeroed: tuple[str, ...]  # names that the checkpoint rightly lacks; zero
    missing: tuple[str, ...]  # names that the checkpoint lacks; as they were in the new networks


def complete(state: StateDict, new: StateDict, kind: KindName) -> Completed:
    """Replaces the weights of new networks by those of a checkpoint.

    Args:
        state: of the checkpoint, names as here.
        new: of the networks.
        kind: says what the checkpoint may lack.

    Raises:
        ValueError: if the two do not fit.
    """
    rules = KINDS[kind]
    lacking = [name for name in new if name not in state]
    zeroed = tuple(name for name in lacking if re.fullmatch(rules.zeroed, name))
    missing = tuple(name for name in lacking if name not in zeroed)
    absent = [name for name in missing if not re.fullmatch(rules.drawn, name)]
    if absent:
        raise ValueError(f"is no complete {kind}: it lacks {_some(absent)}: is this the right file?")
    unknown = [name for name in state if name not in new]
    if unknown:
        raise ValueError(f"is no {kind}: it has weights no such network has, {_some(unknown)}")
    for name, value in state.items():
        if value.shape != new[name].shape:
            expected = f"{tuple(value.shape)}, expected is {tuple(new[name].shape)}"
            raise ValueError(f"is no {kind} as the official one: {name} has shape {expected}")
    zeros = {name: torch.zeros_like(new[name]) for name in zeroed}
    return Completed({**new, **zeros, **state}, zeroed, missing)


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def count_classes(state: StateDict) -> int | None:
    """Number of classes of the main classifier (names as here); none if there is none."""
    counts = (len(value) for name, value in state.items() if name.endswith(".layer6.conv2d_list.0.weight"))
    return next(counts, None)


def recognise_backbone(state: StateDict, part: str) -> BackboneName:
    """The residual network of the DeepLab that a checkpoint has as `part` (names as here).

    Raises:
        ValueError: if it is none of `BACKBONES`, with the nearest one.
    """
    start = f"{part}."
    found = {
        name.removeprefix(start): value.shape
        for name, value in state.items()
        if name.startswith(start) and not re.fullmatch(f"{COUNTERS}|{CLASSIFIERS}", name)
    }
    if not found:
        raise ValueError(f"has no {part}: is this the right kind of checkpoint?")
    differing = {name: _differences(found, _backbone_shapes(name)) for name in BACKBONES}
    nearest = min(BACKBONES, key=lambda name: len(differing[name]))
    if differing[nearest]:
        raise ValueError(
            f"has a residual network that is none of {', '.join(BACKBONES)}: from {nearest} it differs in"
            f" {_some(differing[nearest])}"
        )
    return nearest


def _differences(found: Mapping[str, torch.Size], expected: Mapping[str, torch.Size]) -> list[str]:
    return [name for name in {**expected, **found} if found.get(name) != expected.get(name)]


@cache
def _backbone_shapes(name: BackboneName) -> dict[str, torch.Size]:
    with torch.device("meta"):
        state = DeepLab(name, num_classes=1, auxiliary=False).state_dict()
    return {key: value.shape for key, value in state.items() if not re.fullmatch(f"{COUNTERS}|layer6.*", key)}
