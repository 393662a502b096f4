"""Networks: video segmenters and the flow networks inside them, by name."""

from training.models.accel import AccelConfig
from training.models.da_vss import DaVssConfig
from training.models.deeplab import BACKBONES
from training.models.dff import DffConfig
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNetConfig
from training.models.per_frame import PerFrameConfig
from training.models.raft import RaftConfig
from training.models.shared_accel import SharedAccelConfig
from training.models.video_segmenter import SegmenterConfig

__all__ = ["BACKBONES", "FLOW_NETS", "SEGMENTERS", "FlowNetConfig", "SegmenterConfig"]

SEGMENTERS: dict[str, type[SegmenterConfig]] = {
    "per_frame": PerFrameConfig,
    "accel": AccelConfig,
    "dff": DffConfig,
    "da_vss": DaVssConfig,
    "shared_accel": SharedAccelConfig,
}

FLOW_NETS: dict[str, type[FlowNetConfig]] = {
    "flownet_s": FlowNetSConfig,
    "raft": RaftConfig,
}
