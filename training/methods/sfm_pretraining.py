"""Pre-trains the segmentation-to-flow module on labelled source clips.

Gao et al., Semantic-Flow Consistency (SFC), AAAI 2023, first step. The SFM and its teacher both start from the
source-trained flow network; the SFM learns to give the teacher's flow when it sees one class at a time:

    L = mean over labelled pixels of || sum over present c of SFM([1(Y_t=c) X_t, 1(Y_k=c) X_k]) - F(X_t, X_k) ||

As in the released code, not as in the text: only classes that occur in either frame are summed, and pixels whose
quarter-resolution label is ignored do not count. Both frames need labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import torch

from training.data.clip import IGNORE, Clip, LabelledClip
from training.methods.losses import label_flow_loss
from training.methods.method import Networks, Update
from training.methods.optimization import Adam, Constant, OptimizerSpec, Schedule
from training.methods.pretraining import Pretraining
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig


@dataclass(eq=False)
class SfmPretraining(Pretraining[LabelledClip]):
    """Trains "sfm" to agree with the frozen "teacher_flow"; the target domain is not looked at."""

    trained = "sfm"

    flow_net: FlowNetConfig = field(default_factory=FlowNetSConfig)  # the SFM, and the flow network that teaches it
    optimizer: OptimizerSpec = field(default_factory=lambda: Adam(learning_rate=1e-4, weight_decay=4e-4))  # of the SFM
    schedule: Schedule = field(default_factory=Constant)  # of the learning rate

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        del num_classes
        return {"sfm": self.flow_net.build(), "teacher_flow": self.flow_net.build()}

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step on the source; none on clips whose last frame has no label to learn from."""
        del target
        if bool((source.quarter_labels == IGNORE).all()):
            return
        sfm, teacher_flow = cast("FlowNet", networks["sfm"]), cast("FlowNet", networks["teacher_flow"])
        frames = source.frames[:, -1], source.frames[:, -2]
        with torch.no_grad():
            flow = teacher_flow(*frames)
        labels = source.labels[:, -1], source.labels[:, -2]
        yield Update("sfm", {"flow": label_flow_loss(sfm, flow, labels, source.quarter_labels, frames)})
