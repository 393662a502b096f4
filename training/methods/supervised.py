"""Labels alone: source-only, and target-only when the labelled clips are of the target.

Gao et al., Semantic-Flow Consistency (SFC), AAAI 2023: the baseline rows and where adaptation starts from. Minimised is
the cross entropy of a labelled clip's last frame, in stage one plus a tenth of the auxiliary classifier's.

BatchNorm is in training mode, so whatever is forwarded moves the running statistics. Adaptation forwards target frames:
`forward_target` does that and nothing else, which is the control without which a gain of adaptation means little.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from training.data.clip import Clip, LabelledClip
from training.methods.method import Networks, Update
from training.methods.stage import StagedMethod


@dataclass(eq=False)
class Supervised(StagedMethod):
    """Trains on the labels of the source."""

    forward_target: bool = False  # forward target frames in training mode, without a loss; needs as many as SFC

    def num_target_frames(self) -> int:
        """See `Method.num_target_frames`."""
        return super().num_target_frames() if self.forward_target else 0

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step on the source."""
        segmenter = self.stage.ready(networks)
        loss = self.stage.source_loss(segmenter, source)
        if self.forward_target:
            self.stage.move_statistics(segmenter, target.frames)
        yield Update("segmenter", {"source": loss})
