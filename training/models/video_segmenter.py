"""The seam of all models: a video segmenter is an expensive function of key frames and a cheap one of every frame."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from training.models.upsampling import upsample

KeyState = tuple[Tensor, ...]  # what one stream carries from frame to frame: maps of (B, *, h, w), float32
Levels = tuple[Tensor, ...]  # class scores (B, C, h, w) of each classifier that training supervises, the main one first


class Motion(NamedTuple):
    """The flow that a network carried its past along, and the frame that it points into."""

    flow: Tensor  # (B, 2, h, w), (x, y) in pixels of this map, current to earlier
    earlier: Tensor  # (B, 3, H, W), the frame before, or whichever the network keeps


class Propagation(NamedTuple):
    """What `propagate` makes of one frame."""

    logits: Tensor  # (B, C, h, w), class scores: (H / stride, W / stride) pixels, or one more of each (`SharedAccel`)
    state: KeyState  # the state after this frame
    propagated_logits: Tensor  # like `logits`, their part that came along the flow: tells how stale the state is
    motion: Motion | None  # what it came along; None if nothing is carried from frame to frame


class VideoSegmenter(nn.Module):
    """Segments frame after frame of a video: reads the past through `KeyState` only.

    Frames are (B, 3, H, W) float32, RGB in 0..1, H and W multiples of 8; a model converts them to what its networks
    take. Subclasses define `encode_key` and `propagate`; evaluation, export and serving speak in these two. Training
    also asks for `level_logits`, where there is more than the main classifier, and for `around_backbones`.
    """

    num_classes: int
    stride: int  # pixels of the frame per pixel of `Propagation.logits`
    state_names: tuple[str, ...]  # a name for each tensor of the state; empty for per-frame networks
    num_levels: int = 1  # classifiers that training supervises
    reads_previous: bool = True  # whether `propagate` looks at `previous`; graphs take no frame that nothing reads

    def encode_key(self, frame: Tensor) -> KeyState:
        """The state that a key frame leaves for the frames after it: the expensive reference branch."""
        raise NotImplementedError

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        """Segments `frame` from the state left at `previous`, the frame right before it: the cheap branch."""
        raise NotImplementedError

    def upsample(self, logits: Tensor, stride: int = 1) -> Tensor:
        """Scores (B, C, H / stride, W / stride) from those of `propagate`, which are no larger."""
        return logits if stride == self.stride else upsample(logits, self.stride // stride)

    def level_logits(self, frames: Tensor) -> Levels:
        """Scores of the last of T >= 1 frames (B, T, 3, H, W), not enlarged; the first frame is the key frame."""
        for propagation in self.propagations(frames):
            last = propagation
        return (last.logits,)

    def around_backbones(self) -> tuple[nn.Module, ...]:
        """What the second stage of SFC trains while residual networks are fixed; nothing if there is no such part."""
        return ()

    def folded(self) -> "VideoSegmenter":
        """An equal segmenter for inference, with linear layers merged where that is exact."""
        return self

    def propagations(self, frames: Tensor) -> Iterator[Propagation]:
        """Propagates the key state of the first of T >= 1 frames (B, T, 3, H, W) to each of the others in turn.

        With T = 1 the frame is propagated onto itself, as a stream does with its first frame.
        """
        previous = frames[:, 0]
        state = self.encode_key(previous)
        for frame in (frames[:, 1:] if frames.shape[1] > 1 else frames).unbind(1):
            propagation = self.propagate(state, previous, frame)
            yield propagation
            state, previous = propagation.state, frame

    def forward(self, frames: Tensor) -> Tensor:
        """Scores (B, C, H, W) of the last of T >= 1 frames (B, T, 3, H, W); the first one is the key frame."""
        for propagation in self.propagations(frames):
            last = propagation
        return self.upsample(last.logits)

    # nn.Module's call is untyped: state once what a segmenter returns.
    def __call__(self, frames: Tensor) -> Tensor:
        """`forward`, with hooks."""
        scores: Tensor = super().__call__(frames)
        return scores


@dataclass(frozen=True)
class SegmenterConfig:
    """Which segmenter, on which backbones."""

    def build(self, num_classes: int) -> VideoSegmenter:
        """A newly initialised segmenter."""
        raise NotImplementedError
