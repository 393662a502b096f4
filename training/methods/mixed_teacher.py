"""A mean teacher whose student sees objects of the source in frames of the target.

After Tranheden et al., DACS: Domain Adaptation via Cross-domain Mixed Sampling, WACV 2021. Not a part of SFC. All is as
in `mean_teacher` but for what the student is shown: half of the classes of a source frame are pasted over the target
frame in its other colours. There it is to say what the source's label says, elsewhere what the teacher says. So rare
classes appear with labels that are true, on the target's streets.

Departures: the teacher's probabilities, as in `mean_teacher`, in place of its classes weighted by the share of sure
pixels; the source's frames as the recipe has them, which may be in random colours of their own.
"""

from dataclasses import dataclass

from torch import Tensor

from training.data.clip import LabelledClip
from training.methods.class_mix import paste_classes
from training.methods.mean_teacher import MeanTeacher


@dataclass(eq=False)
class MixedTeacher(MeanTeacher):
    """`MeanTeacher` with classes of source frames in what the student sees."""

    def student_view(self, frames: Tensor, probabilities: Tensor, source: LabelledClip) -> tuple[Tensor, Tensor]:
        """See `MeanTeacher.student_view`."""
        return paste_classes(source, *super().student_view(frames, probabilities, source))
