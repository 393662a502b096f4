from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FrameEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_ENCODING_UNSPECIFIED: _ClassVar[FrameEncoding]
    FRAME_ENCODING_JPEG: _ClassVar[FrameEncoding]
    FRAME_ENCODING_PNG: _ClassVar[FrameEncoding]
    FRAME_ENCODING_RAW_RGB: _ClassVar[FrameEncoding]
    FRAME_ENCODING_RAW_BGR: _ClassVar[FrameEncoding]
    FRAME_ENCODING_RAW_GRAY: _ClassVar[FrameEncoding]
    FRAME_ENCODING_RAW_NV12: _ClassVar[FrameEncoding]
    FRAME_ENCODING_H264: _ClassVar[FrameEncoding]
    FRAME_ENCODING_H265: _ClassVar[FrameEncoding]

class DeliveryPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DELIVERY_POLICY_UNSPECIFIED: _ClassVar[DeliveryPolicy]
    DELIVERY_POLICY_BLOCK: _ClassVar[DeliveryPolicy]
    DELIVERY_POLICY_DROP_OLDEST: _ClassVar[DeliveryPolicy]
    DELIVERY_POLICY_LATEST_ONLY: _ClassVar[DeliveryPolicy]

class OverlayEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OVERLAY_ENCODING_UNSPECIFIED: _ClassVar[OverlayEncoding]
    OVERLAY_ENCODING_JPEG: _ClassVar[OverlayEncoding]
    OVERLAY_ENCODING_PNG: _ClassVar[OverlayEncoding]

class LabelMapSize(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_MAP_SIZE_UNSPECIFIED: _ClassVar[LabelMapSize]
    LABEL_MAP_SIZE_NATIVE: _ClassVar[LabelMapSize]
    LABEL_MAP_SIZE_MODEL: _ClassVar[LabelMapSize]
    LABEL_MAP_SIZE_NONE: _ClassVar[LabelMapSize]

class PixelMapEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PIXEL_MAP_ENCODING_UNSPECIFIED: _ClassVar[PixelMapEncoding]
    PIXEL_MAP_ENCODING_PNG: _ClassVar[PixelMapEncoding]
    PIXEL_MAP_ENCODING_RAW: _ClassVar[PixelMapEncoding]
    PIXEL_MAP_ENCODING_RLE: _ClassVar[PixelMapEncoding]
    PIXEL_MAP_ENCODING_DELTA_RLE: _ClassVar[PixelMapEncoding]

class FrameKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_KIND_UNSPECIFIED: _ClassVar[FrameKind]
    FRAME_KIND_KEY: _ClassVar[FrameKind]
    FRAME_KIND_PROPAGATED: _ClassVar[FrameKind]
    FRAME_KIND_HELD: _ClassVar[FrameKind]

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_SUPERSEDED: _ClassVar[DropReason]
    DROP_REASON_DEADLINE: _ClassVar[DropReason]
    DROP_REASON_OVERLOAD: _ClassVar[DropReason]
    DROP_REASON_QUOTA: _ClassVar[DropReason]

class NoticeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOTICE_KIND_UNSPECIFIED: _ClassVar[NoticeKind]
    NOTICE_KIND_DRAINING: _ClassVar[NoticeKind]
    NOTICE_KIND_DEGRADED: _ClassVar[NoticeKind]
    NOTICE_KIND_MODEL_RELOADED: _ClassVar[NoticeKind]

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_LOADING: _ClassVar[ModelState]
    MODEL_STATE_READY: _ClassVar[ModelState]
    MODEL_STATE_RETIRING: _ClassVar[ModelState]
    MODEL_STATE_STOPPED: _ClassVar[ModelState]
FRAME_ENCODING_UNSPECIFIED: FrameEncoding
FRAME_ENCODING_JPEG: FrameEncoding
FRAME_ENCODING_PNG: FrameEncoding
FRAME_ENCODING_RAW_RGB: FrameEncoding
FRAME_ENCODING_RAW_BGR: FrameEncoding
FRAME_ENCODING_RAW_GRAY: FrameEncoding
FRAME_ENCODING_RAW_NV12: FrameEncoding
FRAME_ENCODING_H264: FrameEncoding
FRAME_ENCODING_H265: FrameEncoding
DELIVERY_POLICY_UNSPECIFIED: DeliveryPolicy
DELIVERY_POLICY_BLOCK: DeliveryPolicy
DELIVERY_POLICY_DROP_OLDEST: DeliveryPolicy
DELIVERY_POLICY_LATEST_ONLY: DeliveryPolicy
OVERLAY_ENCODING_UNSPECIFIED: OverlayEncoding
OVERLAY_ENCODING_JPEG: OverlayEncoding
OVERLAY_ENCODING_PNG: OverlayEncoding
LABEL_MAP_SIZE_UNSPECIFIED: LabelMapSize
LABEL_MAP_SIZE_NATIVE: LabelMapSize
LABEL_MAP_SIZE_MODEL: LabelMapSize
LABEL_MAP_SIZE_NONE: LabelMapSize
PIXEL_MAP_ENCODING_UNSPECIFIED: PixelMapEncoding
PIXEL_MAP_ENCODING_PNG: PixelMapEncoding
PIXEL_MAP_ENCODING_RAW: PixelMapEncoding
PIXEL_MAP_ENCODING_RLE: PixelMapEncoding
PIXEL_MAP_ENCODING_DELTA_RLE: PixelMapEncoding
FRAME_KIND_UNSPECIFIED: FrameKind
FRAME_KIND_KEY: FrameKind
FRAME_KIND_PROPAGATED: FrameKind
FRAME_KIND_HELD: FrameKind
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_SUPERSEDED: DropReason
DROP_REASON_DEADLINE: DropReason
DROP_REASON_OVERLOAD: DropReason
DROP_REASON_QUOTA: DropReason
NOTICE_KIND_UNSPECIFIED: NoticeKind
NOTICE_KIND_DRAINING: NoticeKind
NOTICE_KIND_DEGRADED: NoticeKind
NOTICE_KIND_MODEL_RELOADED: NoticeKind
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_LOADING: ModelState
MODEL_STATE_READY: ModelState
MODEL_STATE_RETIRING: ModelState
MODEL_STATE_STOPPED: ModelState

class SegmentStreamRequest(_message.Message):
    __slots__ = ("config", "frame", "control")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    config: StreamConfig
    frame: Frame
    control: StreamControl
    def __init__(self, config: _Optional[_Union[StreamConfig, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., control: _Optional[_Union[StreamControl, _Mapping]] = ...) -> None: ...

class SegmentStreamResponse(_message.Message):
    __slots__ = ("started", "result", "frame_error", "dropped", "notice", "summary")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FRAME_ERROR_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    started: StreamStarted
    result: FrameResult
    frame_error: FrameError
    dropped: FramesDropped
    notice: StreamNotice
    summary: StreamSummary
    def __init__(self, started: _Optional[_Union[StreamStarted, _Mapping]] = ..., result: _Optional[_Union[FrameResult, _Mapping]] = ..., frame_error: _Optional[_Union[FrameError, _Mapping]] = ..., dropped: _Optional[_Union[FramesDropped, _Mapping]] = ..., notice: _Optional[_Union[StreamNotice, _Mapping]] = ..., summary: _Optional[_Union[StreamSummary, _Mapping]] = ...) -> None: ...

class StreamConfig(_message.Message):
    __slots__ = ("model", "format", "key_frames", "delivery", "outputs", "latency", "resume_token")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    KEY_FRAMES_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    model: str
    format: FrameFormat
    key_frames: KeyFrames
    delivery: Delivery
    outputs: Outputs
    latency: LatencyObjective
    resume_token: str
    def __init__(self, model: _Optional[str] = ..., format: _Optional[_Union[FrameFormat, _Mapping]] = ..., key_frames: _Optional[_Union[KeyFrames, _Mapping]] = ..., delivery: _Optional[_Union[Delivery, _Mapping]] = ..., outputs: _Optional[_Union[Outputs, _Mapping]] = ..., latency: _Optional[_Union[LatencyObjective, _Mapping]] = ..., resume_token: _Optional[str] = ...) -> None: ...

class StreamControl(_message.Message):
    __slots__ = ("force_key_frame", "key_frames")
    FORCE_KEY_FRAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FRAMES_FIELD_NUMBER: _ClassVar[int]
    force_key_frame: ForceKeyFrame
    key_frames: KeyFrames
    def __init__(self, force_key_frame: _Optional[_Union[ForceKeyFrame, _Mapping]] = ..., key_frames: _Optional[_Union[KeyFrames, _Mapping]] = ...) -> None: ...

class ForceKeyFrame(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FrameFormat(_message.Message):
    __slots__ = ("encoding", "width", "height")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    encoding: FrameEncoding
    width: int
    height: int
    def __init__(self, encoding: _Optional[_Union[FrameEncoding, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class KeyFrames(_message.Message):
    __slots__ = ("fixed", "adaptive", "manual")
    FIXED_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_FIELD_NUMBER: _ClassVar[int]
    MANUAL_FIELD_NUMBER: _ClassVar[int]
    fixed: FixedKeyFrames
    adaptive: AdaptiveKeyFrames
    manual: ManualKeyFrames
    def __init__(self, fixed: _Optional[_Union[FixedKeyFrames, _Mapping]] = ..., adaptive: _Optional[_Union[AdaptiveKeyFrames, _Mapping]] = ..., manual: _Optional[_Union[ManualKeyFrames, _Mapping]] = ...) -> None: ...

class FixedKeyFrames(_message.Message):
    __slots__ = ("interval",)
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    interval: int
    def __init__(self, interval: _Optional[int] = ...) -> None: ...

class AdaptiveKeyFrames(_message.Message):
    __slots__ = ("min_interval", "max_interval", "staleness")
    MIN_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MAX_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    min_interval: int
    max_interval: int
    staleness: float
    def __init__(self, min_interval: _Optional[int] = ..., max_interval: _Optional[int] = ..., staleness: _Optional[float] = ...) -> None: ...

class ManualKeyFrames(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LatencyObjective(_message.Message):
    __slots__ = ("target_ms", "max_key_frame_interval", "may_skip_steps", "may_drop_frames")
    TARGET_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_KEY_FRAME_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MAY_SKIP_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAY_DROP_FRAMES_FIELD_NUMBER: _ClassVar[int]
    target_ms: int
    max_key_frame_interval: int
    may_skip_steps: bool
    may_drop_frames: bool
    def __init__(self, target_ms: _Optional[int] = ..., max_key_frame_interval: _Optional[int] = ..., may_skip_steps: _Optional[bool] = ..., may_drop_frames: _Optional[bool] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("policy", "max_in_flight", "max_age_ms")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    policy: DeliveryPolicy
    max_in_flight: int
    max_age_ms: int
    def __init__(self, policy: _Optional[_Union[DeliveryPolicy, str]] = ..., max_in_flight: _Optional[int] = ..., max_age_ms: _Optional[int] = ...) -> None: ...

class Outputs(_message.Message):
    __slots__ = ("labels", "confidence", "label_encoding", "overlay")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_ENCODING_FIELD_NUMBER: _ClassVar[int]
    OVERLAY_FIELD_NUMBER: _ClassVar[int]
    labels: LabelMapSize
    confidence: bool
    label_encoding: PixelMapEncoding
    overlay: OverlayEncoding
    def __init__(self, labels: _Optional[_Union[LabelMapSize, str]] = ..., confidence: _Optional[bool] = ..., label_encoding: _Optional[_Union[PixelMapEncoding, str]] = ..., overlay: _Optional[_Union[OverlayEncoding, str]] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("sequence", "capture_time_us", "data", "force_key_frame", "deadline_ms")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_TIME_US_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORCE_KEY_FRAME_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    capture_time_us: int
    data: bytes
    force_key_frame: bool
    deadline_ms: int
    def __init__(self, sequence: _Optional[int] = ..., capture_time_us: _Optional[int] = ..., data: _Optional[bytes] = ..., force_key_frame: _Optional[bool] = ..., deadline_ms: _Optional[int] = ...) -> None: ...

class StreamStarted(_message.Message):
    __slots__ = ("stream_id", "model", "max_in_flight", "key_frames", "max_consecutive_errors", "resume_token", "resumed", "resume_ms")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    KEY_FRAMES_FIELD_NUMBER: _ClassVar[int]
    MAX_CONSECUTIVE_ERRORS_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    RESUME_MS_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    model: Model
    max_in_flight: int
    key_frames: KeyFrames
    max_consecutive_errors: int
    resume_token: str
    resumed: bool
    resume_ms: int
    def __init__(self, stream_id: _Optional[str] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., max_in_flight: _Optional[int] = ..., key_frames: _Optional[_Union[KeyFrames, _Mapping]] = ..., max_consecutive_errors: _Optional[int] = ..., resume_token: _Optional[str] = ..., resumed: _Optional[bool] = ..., resume_ms: _Optional[int] = ...) -> None: ...

class FrameResult(_message.Message):
    __slots__ = ("sequence", "capture_time_us", "labels", "confidence", "provenance", "classes", "quality", "timings", "overlay")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_TIME_US_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    OVERLAY_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    capture_time_us: int
    labels: PixelMap
    confidence: PixelMap
    provenance: Provenance
    classes: _containers.RepeatedCompositeFieldContainer[ClassShare]
    quality: Quality
    timings: Timings
    overlay: Overlay
    def __init__(self, sequence: _Optional[int] = ..., capture_time_us: _Optional[int] = ..., labels: _Optional[_Union[PixelMap, _Mapping]] = ..., confidence: _Optional[_Union[PixelMap, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., classes: _Optional[_Iterable[_Union[ClassShare, _Mapping]]] = ..., quality: _Optional[_Union[Quality, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., overlay: _Optional[_Union[Overlay, _Mapping]] = ...) -> None: ...

class Overlay(_message.Message):
    __slots__ = ("encoding", "width", "height", "data")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    encoding: OverlayEncoding
    width: int
    height: int
    data: bytes
    def __init__(self, encoding: _Optional[_Union[OverlayEncoding, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class PixelMap(_message.Message):
    __slots__ = ("encoding", "width", "height", "data")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    encoding: PixelMapEncoding
    width: int
    height: int
    data: bytes
    def __init__(self, encoding: _Optional[_Union[PixelMapEncoding, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("kind", "refreshes_key", "key_frame_age", "model", "precision", "held_frames")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REFRESHES_KEY_FIELD_NUMBER: _ClassVar[int]
    KEY_FRAME_AGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    HELD_FRAMES_FIELD_NUMBER: _ClassVar[int]
    kind: FrameKind
    refreshes_key: bool
    key_frame_age: int
    model: str
    precision: str
    held_frames: int
    def __init__(self, kind: _Optional[_Union[FrameKind, str]] = ..., refreshes_key: _Optional[bool] = ..., key_frame_age: _Optional[int] = ..., model: _Optional[str] = ..., precision: _Optional[str] = ..., held_frames: _Optional[int] = ...) -> None: ...

class ClassShare(_message.Message):
    __slots__ = ("index", "share", "mean_confidence")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    MEAN_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    index: int
    share: float
    mean_confidence: float
    def __init__(self, index: _Optional[int] = ..., share: _Optional[float] = ..., mean_confidence: _Optional[float] = ...) -> None: ...

class Quality(_message.Message):
    __slots__ = ("mean_confidence", "disagreement", "mean_entropy", "warp_residual", "drift")
    MEAN_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    DISAGREEMENT_FIELD_NUMBER: _ClassVar[int]
    MEAN_ENTROPY_FIELD_NUMBER: _ClassVar[int]
    WARP_RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    mean_confidence: float
    disagreement: float
    mean_entropy: float
    warp_residual: float
    drift: float
    def __init__(self, mean_confidence: _Optional[float] = ..., disagreement: _Optional[float] = ..., mean_entropy: _Optional[float] = ..., warp_residual: _Optional[float] = ..., drift: _Optional[float] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("decode_ms", "queue_ms", "key_ms", "step_ms", "encode_ms", "total_ms", "batch_size")
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    KEY_MS_FIELD_NUMBER: _ClassVar[int]
    STEP_MS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    decode_ms: float
    queue_ms: float
    key_ms: float
    step_ms: float
    encode_ms: float
    total_ms: float
    batch_size: int
    def __init__(self, decode_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., key_ms: _Optional[float] = ..., step_ms: _Optional[float] = ..., encode_ms: _Optional[float] = ..., total_ms: _Optional[float] = ..., batch_size: _Optional[int] = ...) -> None: ...

class FrameError(_message.Message):
    __slots__ = ("sequence", "code", "message")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    code: int
    message: str
    def __init__(self, sequence: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class FramesDropped(_message.Message):
    __slots__ = ("first", "last", "count", "reason")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    count: int
    reason: DropReason
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ..., count: _Optional[int] = ..., reason: _Optional[_Union[DropReason, str]] = ...) -> None: ...

class StreamNotice(_message.Message):
    __slots__ = ("kind", "message", "grace_ms", "level", "model")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    kind: NoticeKind
    message: str
    grace_ms: int
    level: int
    model: str
    def __init__(self, kind: _Optional[_Union[NoticeKind, str]] = ..., message: _Optional[str] = ..., grace_ms: _Optional[int] = ..., level: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class StreamSummary(_message.Message):
    __slots__ = ("num_frames", "num_results", "num_errors", "num_dropped", "num_key_frames", "num_held")
    NUM_FRAMES_FIELD_NUMBER: _ClassVar[int]
    NUM_RESULTS_FIELD_NUMBER: _ClassVar[int]
    NUM_ERRORS_FIELD_NUMBER: _ClassVar[int]
    NUM_DROPPED_FIELD_NUMBER: _ClassVar[int]
    NUM_KEY_FRAMES_FIELD_NUMBER: _ClassVar[int]
    NUM_HELD_FIELD_NUMBER: _ClassVar[int]
    num_frames: int
    num_results: int
    num_errors: int
    num_dropped: int
    num_key_frames: int
    num_held: int
    def __init__(self, num_frames: _Optional[int] = ..., num_results: _Optional[int] = ..., num_errors: _Optional[int] = ..., num_dropped: _Optional[int] = ..., num_key_frames: _Optional[int] = ..., num_held: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "classes", "precision", "width", "height", "runtime", "state", "num_streams")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NUM_STREAMS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    classes: _containers.RepeatedCompositeFieldContainer[Class]
    precision: str
    width: int
    height: int
    runtime: str
    state: ModelState
    num_streams: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., classes: _Optional[_Iterable[_Union[Class, _Mapping]]] = ..., precision: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., runtime: _Optional[str] = ..., state: _Optional[_Union[ModelState, str]] = ..., num_streams: _Optional[int] = ...) -> None: ...

class Class(_message.Message):
    __slots__ = ("name", "red", "green", "blue")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RED_FIELD_NUMBER: _ClassVar[int]
    GREEN_FIELD_NUMBER: _ClassVar[int]
    BLUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    red: int
    green: int
    blue: int
    def __init__(self, name: _Optional[str] = ..., red: _Optional[int] = ..., green: _Optional[int] = ..., blue: _Optional[int] = ...) -> None: ...

class SegmentImageRequest(_message.Message):
    __slots__ = ("model", "format", "outputs", "data")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    model: str
    format: FrameFormat
    outputs: Outputs
    data: bytes
    def __init__(self, model: _Optional[str] = ..., format: _Optional[_Union[FrameFormat, _Mapping]] = ..., outputs: _Optional[_Union[Outputs, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class SegmentImageResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: FrameResult
    def __init__(self, result: _Optional[_Union[FrameResult, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "draining", "num_streams", "limits")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    NUM_STREAMS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    version: str
    draining: bool
    num_streams: int
    limits: Limits
    def __init__(self, version: _Optional[str] = ..., draining: _Optional[bool] = ..., num_streams: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_streams", "max_in_flight", "max_frame_bytes", "max_frame_pixels")
    MAX_STREAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_PIXELS_FIELD_NUMBER: _ClassVar[int]
    max_streams: int
    max_in_flight: int
    max_frame_bytes: int
    max_frame_pixels: int
    def __init__(self, max_streams: _Optional[int] = ..., max_in_flight: _Optional[int] = ..., max_frame_bytes: _Optional[int] = ..., max_frame_pixels: _Optional[int] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("bundle",)
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    bundle: str
    def __init__(self, bundle: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("model", "retired")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RETIRED_FIELD_NUMBER: _ClassVar[int]
    model: Model
    retired: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., retired: _Optional[_Iterable[str]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ("num_streams",)
    NUM_STREAMS_FIELD_NUMBER: _ClassVar[int]
    num_streams: int
    def __init__(self, num_streams: _Optional[int] = ...) -> None: ...

class ListStreamsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListStreamsResponse(_message.Message):
    __slots__ = ("streams",)
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[StreamInfo]
    def __init__(self, streams: _Optional[_Iterable[_Union[StreamInfo, _Mapping]]] = ...) -> None: ...

class StreamInfo(_message.Message):
    __slots__ = ("stream_id", "model", "peer", "age_ms", "totals", "in_flight", "level", "drift")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    model: str
    peer: str
    age_ms: int
    totals: StreamSummary
    in_flight: int
    level: int
    drift: float
    def __init__(self, stream_id: _Optional[str] = ..., model: _Optional[str] = ..., peer: _Optional[str] = ..., age_ms: _Optional[int] = ..., totals: _Optional[_Union[StreamSummary, _Mapping]] = ..., in_flight: _Optional[int] = ..., level: _Optional[int] = ..., drift: _Optional[float] = ...) -> None: ...

class CloseStreamRequest(_message.Message):
    __slots__ = ("stream_id",)
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    def __init__(self, stream_id: _Optional[str] = ...) -> None: ...

class CloseStreamResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("grace_ms",)
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    grace_ms: int
    def __init__(self, grace_ms: _Optional[int] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("num_streams",)
    NUM_STREAMS_FIELD_NUMBER: _ClassVar[int]
    num_streams: int
    def __init__(self, num_streams: _Optional[int] = ...) -> None: ...
