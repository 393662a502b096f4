"""The fully convolutional discriminator of adversarial adaptation.

Tsai et al., Learning to Adapt Structured Output Space for Semantic Segmentation, CVPR 2018, after DCGAN; AdvEnt and
DA-VSN take it as it is.
"""

from torch import Tensor, nn


class Discriminator(nn.Sequential):
    """Tells source from target: one logit per 32x32 pixels of maps (B, C, H, W), as (B, 1, H / 32, W / 32)."""

    def __init__(self, in_channels: int, width: int) -> None:
        """Draws new weights; `width` channels leave the first of five convolutions, 64 in the papers."""
        layers: list[nn.Module] = []
        for channels in (width, 2 * width, 4 * width, 8 * width):
            layers += [nn.Conv2d(in_channels, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
            in_channels = channels
        super().__init__(*layers, nn.Conv2d(in_channels, 1, 4, stride=2, padding=1))

    # nn.Module's call is untyped: state once what a discriminator returns.
    def __call__(self, maps: Tensor) -> Tensor:
        """`forward`, with hooks."""
        logits: Tensor = super().__call__(maps)
        return logits
