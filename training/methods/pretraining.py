"""What methods share that train a single network before any segmenter is adapted, on the source alone."""

from typing import ClassVar

from torch.optim import Optimizer

from training.methods.method import Method, Networks, Source
from training.methods.optimization import OptimizerSpec, ParameterGroup, Schedule


class Pretraining(Method[Source]):
    """Trains all of one network; the target domain is not looked at."""

    trained: ClassVar[str]  # key of the network
    optimizer: OptimizerSpec
    schedule: Schedule

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """See `Method.optimizers`."""
        return {self.trained: self.optimizer.build([ParameterGroup(list(networks[self.trained].parameters()))])}

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """See `Method.learning_rate_factor`."""
        return self.schedule.factor(step, steps)

    def num_target_frames(self) -> int:
        """See `Method.num_target_frames`."""
        return 0
