"""What flow says of a class that position does not: a likelihood ratio of two small classifiers.

By Bayes, how much likelier a flow F is at position x on class c than on any:

    log p(F | c, x) / p(F | x) = log p(c | F, x) - log p(c | x)

One network predicts the class from flow and position, another from position alone; both are trained on the source. The
ratio can be added to class scores of another network, which know the position already, without counting it twice. It
changes with the domain as little as flow does. Not a part of SFC: its loss does not know one class from another.
"""

import torch
from torch import Tensor, nn

LIMIT = 3.0  # of a logarithm: what is learnt on one domain decides nothing alone on another
FLOW_SCALE = 32.0  # times flow in widths of the image: the demo's are about 1 then


class FlowRatio(nn.Module):
    """Two classifiers of pixels of a flow map; there is no BatchNorm, whose statistics would be those of a domain."""

    def __init__(self, num_classes: int, width: int) -> None:
        """Networks of `width` channels. That of flow sees 15 pixels square, that of position its own pixel."""
        super().__init__()
        self.of_flow = nn.Sequential(
            nn.Conv2d(4, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=4, dilation=4), nn.ReLU(),
            nn.Conv2d(width, num_classes, 1),
        )  # fmt: skip
        self.of_position = nn.Sequential(
            nn.Conv2d(2, width, 1), nn.ReLU(),
            nn.Conv2d(width, width, 1), nn.ReLU(),
            nn.Conv2d(width, num_classes, 1),
        )  # fmt: skip

    def scores(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores (B, C, h, w) of flow (B, 2, h, w) with position, and (1, C, h, w) of position alone."""
        position = _position(flow)
        seen = torch.cat([flow * (FLOW_SCALE / flow.shape[-1]), position.expand(len(flow), -1, -1, -1)], dim=1)
        return self.of_flow(seen), self.of_position(position)

    def forward(self, flow: Tensor) -> Tensor:
        """The logarithm of the ratio, (B, C, h, w), -3..3, of flow (B, 2, h, w) in pixels of the map."""
        with_flow, of_position = (scores.log_softmax(dim=1) for scores in self.scores(flow))
        return (with_flow - of_position).clamp(-LIMIT, LIMIT)


def _position(flow: Tensor) -> Tensor:
    """(1, 2, h, w), x and y from -1 to 1."""
    height, width = flow.shape[-2:]
    y, x = (torch.linspace(-1, 1, length, dtype=flow.dtype, device=flow.device) for length in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])[None]
