import pytest
import torch

from training.data.clip import IGNORE, LabelledClip
from training.methods.class_mix import draw_classes, paste_classes


def test_half_of_the_classes_are_drawn_and_never_what_is_ignored() -> None:
    labels = torch.tensor([[IGNORE, 2, 5], [5, 7, IGNORE]])
    drawn = {tuple(sorted(draw_classes(labels).tolist())) for _ in range(40)}
    assert drawn == {(2, 5), (2, 7), (5, 7)}
    assert len(draw_classes(torch.full((2, 2), IGNORE))) == 0


def test_pixels_of_a_class_and_their_labels_are_pasted_into_the_frames_they_belong_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.methods.class_mix.draw_classes", lambda _: torch.tensor([1]))
    labels = torch.tensor([[[[0, 1], [1, IGNORE]], [[1, 0], [0, IGNORE]]]])  # of both frames of a clip of 2x2 pixels
    source = LabelledClip(torch.ones(1, 2, 3, 2, 2), labels, labels[:, -1])
    shown = torch.full((2, 3, 2, 2), 1 / 3)
    frames, probabilities = paste_classes(source, torch.zeros(2, 2, 3, 2, 2), shown)
    for clip, of_clip in zip(frames, probabilities, strict=True):  # the one source clip serves both
        assert torch.equal(clip[:, 0], torch.tensor([[[0.0, 1], [1, 0]], [[1, 0], [0, 0]]]))
        assert of_clip[:, 0, 0].tolist() == [0, 1, 0]
        assert torch.equal(of_clip[:, 0, 1], shown[0, :, 0, 1])
        assert torch.equal(of_clip[:, 1], shown[0, :, 1])


def test_frames_of_another_size_are_resized() -> None:
    labels = torch.zeros(1, 2, 8, 4, dtype=torch.int64)
    source = LabelledClip(torch.ones(1, 2, 3, 8, 4), labels, labels[:, -1])
    frames, probabilities = paste_classes(source, torch.zeros(1, 2, 3, 4, 6), torch.full((1, 2, 4, 6), 0.5))
    assert frames.eq(1).all()
    assert probabilities[:, 0].eq(1).all()
