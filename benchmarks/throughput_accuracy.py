"""Mean IoU of what a server answers, on labelled clips of the embedded world."""

import numpy as np
import torch

from serving.bundle import Bundle
from serving.client import FixedKeyFrames, Outputs, SegmentationClient, StreamOptions
from training.data.world.dataset import World
from training.label_spaces import VIPER_TO_CITYSCAPES
from training.metrics import confusion_matrix, mean_iou
from training.progress import with_progress

LOOK = "mid"  # that the demo adapts to
NUM_CLIPS = 20  # held out from training: those that the demo is validated on, and longer
CLIP_FRAMES = 11  # all count: with a key frame every 5 frames, each age of it twice


def why_no_accuracy(bundle: Bundle) -> str:
    """Why a bundle has no mean IoU here; empty if it has one."""
    manifest = bundle.manifest
    if manifest.provenance.get("untrained"):
        return "untrained"
    if tuple(info.name for info in manifest.classes) != VIPER_TO_CITYSCAPES.names:
        return "other classes than the world's"
    return ""


def served_mean_iou(address: str, size: tuple[int, int], key_frame_interval: int, num_clips: int = NUM_CLIPS) -> float:
    """Streams the clips, one after the other, without loss.

    Args:
        address: HOST:PORT of a server with one model.
        size: height and width of the model's frames in pixels.
        key_frame_interval: in frames.
        num_clips: to stream.

    Returns:
        In percent.

    Raises:
        CallError: if the server refuses.
    """
    clips = World(
        look=LOOK, split="val", size=size, num_clips=num_clips, num_frames=CLIP_FRAMES, seed=1, render_on_access=True
    ).open()
    confusion = torch.zeros(VIPER_TO_CITYSCAPES.num_classes, VIPER_TO_CITYSCAPES.num_classes, dtype=torch.int64)
    options = StreamOptions(
        encoding="png",
        key_frames=FixedKeyFrames(interval=key_frame_interval),
        max_in_flight=2,
        outputs=Outputs(labels="model"),
    )
    for index in with_progress(range(num_clips), f"mIoU at interval {key_frame_interval}"):
        clip = clips[index]
        frames = (clip.frames.permute(0, 2, 3, 1) * 255).round().byte().numpy()
        with SegmentationClient(address) as client, client.stream(options) as stream:
            answers = list(stream.segment(np.ascontiguousarray(frames)))
        for labels, answer in zip(clip.labels, answers, strict=True):
            assert answer.labels is not None
            predicted = torch.from_numpy(answer.labels.astype(np.int64))
            confusion += confusion_matrix(labels, predicted, VIPER_TO_CITYSCAPES.num_classes)
    return mean_iou(confusion, VIPER_TO_CITYSCAPES.evaluated)
