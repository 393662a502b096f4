"""Data sets: videos with labels, with flow, or with nothing but frames."""

from training.data.cityscapes_seq import CityscapesSeq
from training.data.data_config import DataConfig
from training.data.synthia_seq import SynthiaSeq
from training.data.video_folder import VideoFolder
from training.data.viper import Viper
from training.data.world.dataset import World, WorldFlow

__all__ = ["DATASETS", "CityscapesSeq", "DataConfig", "SynthiaSeq", "VideoFolder", "Viper", "World", "WorldFlow"]

DATASETS: dict[str, type[DataConfig]] = {
    "world": World,
    "world-flow": WorldFlow,
    "viper": Viper,
    "cityscapes-seq": CityscapesSeq,
    "synthia-seq": SynthiaSeq,
    "video-folder": VideoFolder,
}
