"""Segments each frame on its own: stage one of Accel, and the baseline without any video."""

from dataclasses import dataclass

from torch import Tensor

from training.models.deeplab import BackboneName, DeepLab
from training.models.video_segmenter import KeyState, Levels, Propagation, SegmenterConfig, VideoSegmenter


class PerFrame(VideoSegmenter):
    """A DeepLab per frame; nothing flows from one frame to the next."""

    stride = 8
    state_names = ()

    def __init__(self, segnet: DeepLab, num_classes: int) -> None:
        """Wraps a network that gives `num_classes` scores."""
        super().__init__()
        self.num_classes = num_classes
        self.segnet = segnet
        self.num_levels = 2 if segnet.auxiliary else 1

    def encode_key(self, frame: Tensor) -> KeyState:
        """Nothing."""
        del frame
        return ()

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        """Segments `frame` by itself. Its scores are never stale, so they are all of `propagated_logits`."""
        del state, previous
        logits = self.segnet(frame)
        return Propagation(logits=logits, state=(), propagated_logits=logits, motion=None)

    def level_logits(self, frames: Tensor) -> Levels:
        """Scores of the main classifier, then of the auxiliary one where there is one."""
        return self.segnet.level_scores(frames[:, -1])


@dataclass(frozen=True)
class PerFrameConfig(SegmenterConfig):
    """A DeepLab per frame."""

    backbone: BackboneName = "resnet101"  # residual network under the classifier
    auxiliary: bool = True  # add the second classifier on layer3 that training supervises too ("multi-level")

    def build(self, num_classes: int) -> PerFrame:
        """A newly initialised segmenter."""
        return PerFrame(DeepLab(self.backbone, num_classes, self.auxiliary), num_classes)
