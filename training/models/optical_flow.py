"""The seam of all flow networks: two frames in, the motion between them out."""

from dataclasses import dataclass

from torch import Tensor, nn


class FlowNet(nn.Module):
    """Estimates where each pixel of the current frame was in the previous one.

    The same networks serve as segmentation-to-flow modules, on frames multiplied with class probabilities.
    """

    feature_channels: int = 0  # D of `with_features`; 0 if the network has no features to give

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """Flow from `current` to `previous`, both (B, 3, H, W), RGB in 0..1.

        Returns:
            (B, 2, ceil(H / 4), ceil(W / 4)), (x, y) in pixels of that quarter resolution.
        """
        raise NotImplementedError

    def of_class(self, current: Tensor, previous: Tensor, masks: tuple[Tensor, Tensor], category: Tensor) -> Tensor:
        """`forward` of frames multiplied with masks. A module that is told which class that is overrides it.

        Args:
            current: (B, 3, H, W), RGB in 0..1.
            previous: (B, 3, H, W).
            masks: (B, H, W) each, 0..1, where the class is in the current and in the previous frame.
            category: (B,) int64, class indices.
        """
        del category
        return self(masks[0].unsqueeze(1) * current, masks[1].unsqueeze(1) * previous)

    def with_features(self, current: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """`forward`, and the features (B, D, ceil(H / 4), ceil(W / 4)) that it reads the flow off."""
        raise NotImplementedError

    # nn.Module's call is untyped: state once what a flow network returns.
    def __call__(self, current: Tensor, previous: Tensor) -> Tensor:
        """`forward`, with hooks."""
        flow: Tensor = super().__call__(current, previous)
        return flow


@dataclass(frozen=True)
class FlowNetConfig:
    """Which flow network, and how large."""

    def build(self) -> FlowNet:
        """A newly initialised network."""
        raise NotImplementedError
