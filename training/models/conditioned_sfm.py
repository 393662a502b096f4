"""A segmentation-to-flow module that is told which class it looks at. Not the paper's.

SFC's module (Gao et al., AAAI 2023, Eq. 1) sees P_t^c X_t and P_k^c X_k and not c, so permuting the classes of both
frames leaves the sum of flows as it is: its error cannot know one class from another. Here the embedding of c changes
the encoder's maps where the class is, by a scale and a shift per channel (FiLM; Perez et al., AAAI 2018):

    features (1 + m a_l(e_c)) + m b_l(e_c),   m = (P_t^c + P_k^c) / 2 at the size of level l, 1/4 to 1/32

Where a class has no pixel nothing changes, so what absent classes add is the same for all, as in the paper's module.
a_l and b_l start at zero: a new module is the flow network that it is made of.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from training.models.flownet_s import FlowNetS
from training.models.optical_flow import FlowNet

EMBEDDING = 8  # dimensions of a class
LEVELS = (2, 3, 4, 5)  # of the encoder: 1/4, 1/8, 1/16 and 1/32 of the frame's resolution


class ConditionedSfm(FlowNet):
    """A thin FlowNetS and what each class does to it."""

    def __init__(self, flow_net: FlowNetS, num_classes: int) -> None:
        """Conditions a flow network on one of some classes."""
        super().__init__()
        self.flow_net = flow_net
        self.embedding = nn.Embedding(num_classes, EMBEDDING)
        self.films = nn.ModuleDict(
            {str(level): nn.Linear(EMBEDDING, 2 * flow_net.encoder_channels[level], bias=False) for level in LEVELS}
        )
        for film in self.films.children():
            nn.init.zeros_(film.get_parameter("weight"))

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """See `FlowNet.forward`. The flow network by itself, as where no class has a pixel."""
        return self.flow_net(current, previous)

    def of_class(self, current: Tensor, previous: Tensor, masks: tuple[Tensor, Tensor], category: Tensor) -> Tensor:
        """See `FlowNet.of_class`."""
        of_current, of_previous = (mask.unsqueeze(1) for mask in masks)
        mask, embedding = (of_current + of_previous) / 2, self.embedding(category)

        def modulate(features: Tensor, level: int) -> Tensor:
            if str(level) not in self.films:
                return features
            scale, shift = self.films[str(level)](embedding)[:, :, None, None].chunk(2, dim=1)
            where = F.interpolate(mask, features.shape[-2:], mode="area")
            modulated: Tensor = features * (1 + where * scale) + where * shift
            return modulated

        return self.flow_net.with_features(of_current * current, of_previous * previous, modulate)[0]
