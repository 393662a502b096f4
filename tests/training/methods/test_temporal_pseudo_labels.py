"""What TPS and TPL have in common, on a scene in which every number is known."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.data.clip import Clip, LabelledClip
from training.methods.photometric import Photometric
from training.methods.stage import StageOne
from training.methods.supervised import Supervised
from training.methods.tpl import Tpl
from training.methods.tps import Tps
from training.models.optical_flow import FlowNet
from training.models.video_segmenter import Levels, VideoSegmenter

SURENESS = 2.0  # difference of scores


class Brightness(VideoSegmenter):
    """Bright is class 0, dark is class 1; looks at one pixel of quarter resolution at a time."""

    stride = 4

    def __init__(self) -> None:
        super().__init__()
        self.sureness = nn.Parameter(torch.tensor(SURENESS))

    def level_logits(self, frames: Tensor) -> Levels:
        is_bright = (F.avg_pool2d(frames[:, -1].mean(1, keepdim=True), 4) > 0.5).to(frames.dtype)
        return (self.sureness * torch.cat([is_bright, 1 - is_bright], dim=1),)


class ConstantFlow(FlowNet):
    """Everything was so many pixels further to the left."""

    def __init__(self, pixels: float) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        b, _, h, w = current.shape
        return torch.tensor([-self.pixels / 4, 0.0]).view(1, 2, 1, 1).expand(b, 2, h // 4, w // 4)


def columns(*brightness: float) -> Tensor:
    """A frame (3, 16, 64) of columns 16 pixels wide."""
    return torch.tensor(brightness, dtype=torch.float32).repeat_interleave(16).expand(3, 16, 64)


# All that is seen moves to the right by a column; the first one is repeated.
MOVING = Clip(torch.stack([columns(1, 0, 1, 1), columns(1, 1, 0, 1)]).unsqueeze(0))
LABELS = torch.zeros(1, 2, 16, 64, dtype=torch.int64)
SOURCE = LabelledClip(MOVING.frames, LABELS, LABELS[:, -1, ::4, ::4])
AGREEING, DISAGREEING = math.log(1 + math.exp(-SURENESS)), math.log(1 + math.exp(SURENESS))


def pseudo_loss(method: Tps | Tpl, flow_in_pixels: float) -> float:
    networks = {"segmenter": Brightness(), "teacher_flow": ConstantFlow(flow_in_pixels)}
    (update,) = method.updates(networks, SOURCE, MOVING)
    (name,) = update.losses.keys() - {"source"}
    return update.losses[name].item()


@pytest.fixture
def unperturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tps", "tpl"):
        monkeypatch.setattr(
            f"training.methods.{module}.draw_photometric", lambda: Photometric(0.0, None, is_grey=False)
        )
    monkeypatch.setattr("training.methods.tps.draw_scale", lambda: 1.0)


STAGE = StageOne(exact_bn=False)
BOTH: list[Tps | Tpl] = [Tps(STAGE, pseudo_weight=1.0), Tpl(Supervised(STAGE), pseudo_weight=1.0)]


@pytest.mark.usefixtures("unperturbed")
@pytest.mark.parametrize("method", BOTH, ids=["tps", "tpl"])
def test_labels_move_with_what_they_label(method: Tps | Tpl) -> None:
    assert pseudo_loss(method, 16) == pytest.approx(AGREEING)


@pytest.mark.usefixtures("unperturbed")
@pytest.mark.parametrize("method", BOTH, ids=["tps", "tpl"])
def test_labels_that_do_not_move_are_wrong_where_the_scene_did(method: Tps | Tpl) -> None:
    assert pseudo_loss(method, 0) == pytest.approx((AGREEING + DISAGREEING) / 2)  # in columns 2 and 3 of 4


@pytest.mark.usefixtures("unperturbed")
@pytest.mark.parametrize("mirrored", [False, True])
def test_it_makes_no_difference_whether_labels_come_from_mirrored_frames(
    mirrored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the released code it does: scores of mirrored frames are warped by flow that is not mirrored."""
    monkeypatch.setattr("training.methods.tps.happens", lambda probability: mirrored)
    assert pseudo_loss(BOTH[0], 16) == pytest.approx(AGREEING)


@pytest.mark.usefixtures("unperturbed")
@pytest.mark.parametrize(("threshold", "is_kept"), [(0.88, True), (0.89, False)])
@pytest.mark.parametrize("kind", [Tps, Tpl])
def test_only_labels_above_the_threshold_count(kind: type[Tps] | type[Tpl], threshold: float, is_kept: bool) -> None:
    # exp(2) / (1 + exp(2)) = 0.8808
    method = Tps(STAGE, threshold=threshold) if kind is Tps else Tpl(Supervised(STAGE), threshold=threshold)
    assert (pseudo_loss(method, 16) > 0) is is_kept
