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

class DeliveryPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DELIVERY_POLICY_UNSPECIFIED: _ClassVar[DeliveryPolicy]
    DELIVERY_POLICY_BLOCK: _ClassVar[DeliveryPolicy]
    DELIVERY_POLICY_DROP_OLDEST: _ClassVar[DeliveryPolicy]
    DELIVERY_POLICY_LATEST_ONLY: _ClassVar[DeliveryPolicy]

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

class FrameKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_KIND_UNSPECIFIED: _ClassVar[FrameKind]
    FRAME_KIND_KEY: _ClassVar[FrameKind]
    FRAME_KIND_PROPAGATED: _ClassVar[FrameKind]

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_SUPERSEDED: _ClassVar[DropReason]

class NoticeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOTICE_KIND_UNSPECIFIED: _ClassVar[NoticeKind]
    NOTICE_KIND_DRAINING: _ClassVar[NoticeKind]
FRAME_ENCODING_UNSPECIFIED: FrameEncoding
FRAME_ENCODING_JPEG: FrameEncoding
FRAME_ENCODING_PNG: FrameEncoding
FRAME_ENCODING_RAW_RGB: FrameEncoding
FRAME_ENCODING_RAW_BGR: FrameEncoding
FRAME_ENCODING_RAW_GRAY: FrameEncoding
DELIVERY_POLICY_UNSPECIFIED: DeliveryPolicy
DELIVERY_POLICY_BLOCK: DeliveryPolicy
DELIVERY_POLICY_DROP_OLDEST: DeliveryPolicy
DELIVERY_POLICY_LATEST_ONLY: DeliveryPolicy
LABEL_MAP_SIZE_UNSPECIFIED: LabelMapSize
LABEL_MAP_SIZE_NATIVE: LabelMapSize
LABEL_MAP_SIZE_MODEL: LabelMapSize
LABEL_MAP_SIZE_NONE: LabelMapSize
PIXEL_MAP_ENCODING_UNSPECIFIED: PixelMapEncoding
PIXEL_MAP_ENCODING_PNG: PixelMapEncoding
FRAME_KIND_UNSPECIFIED: FrameKind
FRAME_KIND_KEY: FrameKind
FRAME_KIND_PROPAGATED: FrameKind
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_SUPERSEDED: DropReason
NOTICE_KIND_UNSPECIFIED: NoticeKind
NOTICE_KIND_DRAINING: NoticeKind

class SegmentStreamRequest(_message.Message):
    __slots__ = ("config", "frame")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    config: StreamConfig
    frame: Frame
    def __init__(self, config: _Optional[_Union[StreamConfig, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("model", "format", "fixed_key_frames", "delivery", "outputs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    FIXED_KEY_FRAMES_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    format: FrameFormat
    fixed_key_frames: FixedKeyFrames
    delivery: Delivery
    outputs: Outputs
    def __init__(self, model: _Optional[str] = ..., format: _Optional[_Union[FrameFormat, _Mapping]] = ..., fixed_key_frames: _Optional[_Union[FixedKeyFrames, _Mapping]] = ..., delivery: _Optional[_Union[Delivery, _Mapping]] = ..., outputs: _Optional[_Union[Outputs, _Mapping]] = ...) -> None: ...

class FrameFormat(_message.Message):
    __slots__ = ("encoding", "width", "height")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    encoding: FrameEncoding
    width: int
    height: int
    def __init__(self, encoding: _Optional[_Union[FrameEncoding, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class FixedKeyFrames(_message.Message):
    __slots__ = ("interval",)
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    interval: int
    def __init__(self, interval: _Optional[int] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("policy", "max_in_flight")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    policy: DeliveryPolicy
    max_in_flight: int
    def __init__(self, policy: _Optional[_Union[DeliveryPolicy, str]] = ..., max_in_flight: _Optional[int] = ...) -> None: ...

class Outputs(_message.Message):
    __slots__ = ("labels", "confidence")
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    labels: LabelMapSize
    confidence: bool
    def __init__(self, labels: _Optional[_Union[LabelMapSize, str]] = ..., confidence: _Optional[bool] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("sequence", "capture_time_us", "data", "force_key_frame")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_TIME_US_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORCE_KEY_FRAME_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    capture_time_us: int
    data: bytes
    force_key_frame: bool
    def __init__(self, sequence: _Optional[int] = ..., capture_time_us: _Optional[int] = ..., data: _Optional[bytes] = ..., force_key_frame: _Optional[bool] = ...) -> None: ...

class StreamStarted(_message.Message):
    __slots__ = ("stream_id", "model", "max_in_flight", "key_frame_interval", "max_consecutive_errors")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    KEY_FRAME_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    MAX_CONSECUTIVE_ERRORS_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    model: Model
    max_in_flight: int
    key_frame_interval: int
    max_consecutive_errors: int
    def __init__(self, stream_id: _Optional[str] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., max_in_flight: _Optional[int] = ..., key_frame_interval: _Optional[int] = ..., max_consecutive_errors: _Optional[int] = ...) -> None: ...

class FrameResult(_message.Message):
    __slots__ = ("sequence", "capture_time_us", "labels", "confidence", "provenance", "classes", "quality", "timings")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_TIME_US_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    capture_time_us: int
    labels: PixelMap
    confidence: PixelMap
    provenance: Provenance
    classes: _containers.RepeatedCompositeFieldContainer[ClassShare]
    quality: Quality
    timings: Timings
    def __init__(self, sequence: _Optional[int] = ..., capture_time_us: _Optional[int] = ..., labels: _Optional[_Union[PixelMap, _Mapping]] = ..., confidence: _Optional[_Union[PixelMap, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., classes: _Optional[_Iterable[_Union[ClassShare, _Mapping]]] = ..., quality: _Optional[_Union[Quality, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("kind", "refreshes_key", "key_frame_age", "model", "precision")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REFRESHES_KEY_FIELD_NUMBER: _ClassVar[int]
    KEY_FRAME_AGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    kind: FrameKind
    refreshes_key: bool
    key_frame_age: int
    model: str
    precision: str
    def __init__(self, kind: _Optional[_Union[FrameKind, str]] = ..., refreshes_key: _Optional[bool] = ..., key_frame_age: _Optional[int] = ..., model: _Optional[str] = ..., precision: _Optional[str] = ...) -> None: ...

class ClassShare(_message.Message):
    __slots__ = ("index", "share")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    index: int
    share: float
    def __init__(self, index: _Optional[int] = ..., share: _Optional[float] = ...) -> None: ...

class Quality(_message.Message):
    __slots__ = ("mean_confidence", "disagreement")
    MEAN_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    DISAGREEMENT_FIELD_NUMBER: _ClassVar[int]
    mean_confidence: float
    disagreement: float
    def __init__(self, mean_confidence: _Optional[float] = ..., disagreement: _Optional[float] = ...) -> None: ...

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
    __slots__ = ("kind", "message", "grace_ms")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    kind: NoticeKind
    message: str
    grace_ms: int
    def __init__(self, kind: _Optional[_Union[NoticeKind, str]] = ..., message: _Optional[str] = ..., grace_ms: _Optional[int] = ...) -> None: ...

class StreamSummary(_message.Message):
    __slots__ = ("num_frames", "num_results", "num_errors", "num_dropped", "num_key_frames")
    NUM_FRAMES_FIELD_NUMBER: _ClassVar[int]
    NUM_RESULTS_FIELD_NUMBER: _ClassVar[int]
    NUM_ERRORS_FIELD_NUMBER: _ClassVar[int]
    NUM_DROPPED_FIELD_NUMBER: _ClassVar[int]
    NUM_KEY_FRAMES_FIELD_NUMBER: _ClassVar[int]
    num_frames: int
    num_results: int
    num_errors: int
    num_dropped: int
    num_key_frames: int
    def __init__(self, num_frames: _Optional[int] = ..., num_results: _Optional[int] = ..., num_errors: _Optional[int] = ..., num_dropped: _Optional[int] = ..., num_key_frames: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "classes", "precision", "width", "height", "runtime", "ready")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    classes: _containers.RepeatedCompositeFieldContainer[Class]
    precision: str
    width: int
    height: int
    runtime: str
    ready: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., classes: _Optional[_Iterable[_Union[Class, _Mapping]]] = ..., precision: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., runtime: _Optional[str] = ..., ready: _Optional[bool] = ...) -> None: ...

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
