import torch
from torch import Tensor

from training.models.video_segmenter import KeyState, Propagation, VideoSegmenter
from training.streaming import stream


class Ledger(VideoSegmenter):
    """Scores that tell which key frame they come from, and how many steps ago."""

    num_classes = 2
    stride = 1
    state_names = ("ledger",)

    def encode_key(self, frame: Tensor) -> KeyState:
        return (torch.cat([frame[:, :1], torch.zeros_like(frame[:, :1])], 1),)

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        del previous, frame
        aged = state[0] + torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
        return Propagation(aged, (aged,), aged, None)


def answers(interval: int, num_frames: int) -> list[tuple[int, int]]:
    frames = [torch.full((1, 3, 8, 8), float(index)) for index in range(num_frames)]
    scores = [answer.logits[0, :, 0, 0] for answer in stream(Ledger(), frames, interval)]
    return [(int(key_frame), int(age)) for key_frame, age in scores]


def test_a_frame_is_answered_before_the_state_is_refreshed() -> None:
    assert answers(interval=1, num_frames=4) == [(0, 1), (0, 1), (1, 1), (2, 1)]


def test_frames_between_key_frames_are_propagated() -> None:
    assert answers(interval=3, num_frames=7) == [(0, 1), (0, 1), (0, 2), (0, 3), (3, 1), (3, 2), (3, 3)]


def test_interval_one_is_the_papers_evaluation_of_pairs() -> None:
    frames = torch.rand(5, 1, 3, 8, 8)
    ledger = Ledger()
    streamed = [answer.logits for answer in stream(ledger, frames, 1)]
    for index in range(1, 5):
        assert torch.equal(streamed[index], ledger(frames[index - 1 : index + 1].transpose(0, 1)))
