from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Dtype(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[Dtype]
    FP32: _ClassVar[Dtype]
    FP16: _ClassVar[Dtype]
    INT8: _ClassVar[Dtype]
    FP64: _ClassVar[Dtype]
DTYPE_UNSPECIFIED: Dtype
FP32: Dtype
FP16: Dtype
INT8: Dtype
FP64: Dtype

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data", "scale")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    dtype: Dtype
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    scale: float
    def __init__(self, dtype: _Optional[_Union[Dtype, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ..., scale: _Optional[float] = ...) -> None: ...

class ClientMessage(_message.Message):
    __slots__ = ("hello", "smashed", "weights", "kept")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SMASHED_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    smashed: Smashed
    weights: Weights
    kept: Kept
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., smashed: _Optional[_Union[Smashed, _Mapping]] = ..., weights: _Optional[_Union[Weights, _Mapping]] = ..., kept: _Optional[_Union[Kept, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "step", "gradient", "head", "keep", "refused", "goodbye")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    step: StepRequest
    gradient: Gradient
    head: Head
    keep: Keep
    refused: Refused
    goodbye: Goodbye
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., step: _Optional[_Union[StepRequest, _Mapping]] = ..., gradient: _Optional[_Union[Gradient, _Mapping]] = ..., head: _Optional[_Union[Head, _Mapping]] = ..., keep: _Optional[_Union[Keep, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class KeptState(_message.Message):
    __slots__ = ("run", "step", "head_step")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    HEAD_STEP_FIELD_NUMBER: _ClassVar[int]
    run: str
    step: int
    head_step: int
    def __init__(self, run: _Optional[str] = ..., step: _Optional[int] = ..., head_step: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "client", "num_images", "exported_head", "head_digest", "incarnation", "head_step", "kept")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    NUM_IMAGES_FIELD_NUMBER: _ClassVar[int]
    EXPORTED_HEAD_FIELD_NUMBER: _ClassVar[int]
    HEAD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HEAD_STEP_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    client: int
    num_images: int
    exported_head: bool
    head_digest: str
    incarnation: str
    head_step: int
    kept: _containers.RepeatedCompositeFieldContainer[KeptState]
    def __init__(self, protocol: _Optional[int] = ..., client: _Optional[int] = ..., num_images: _Optional[int] = ..., exported_head: _Optional[bool] = ..., head_digest: _Optional[str] = ..., incarnation: _Optional[str] = ..., head_step: _Optional[int] = ..., kept: _Optional[_Iterable[_Union[KeptState, _Mapping]]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "run", "incarnation", "client", "settings", "go_on", "restore_step", "head")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    GO_ON_FIELD_NUMBER: _ClassVar[int]
    RESTORE_STEP_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run: str
    incarnation: str
    client: int
    settings: Settings
    go_on: bool
    restore_step: int
    head: Head
    def __init__(self, protocol: _Optional[int] = ..., run: _Optional[str] = ..., incarnation: _Optional[str] = ..., client: _Optional[int] = ..., settings: _Optional[_Union[Settings, _Mapping]] = ..., go_on: _Optional[bool] = ..., restore_step: _Optional[int] = ..., head: _Optional[_Union[Head, _Mapping]] = ...) -> None: ...

class Settings(_message.Message):
    __slots__ = ("seed", "network", "views", "image_size", "mean", "std", "batch_size", "steps_per_round", "both_views", "frozen", "align_momentum", "tau", "sgd_momentum", "weight_decay", "smashed_dtype", "compute_dtype", "smashed_shape", "num_parameters", "head_digest")
    SEED_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_ROUND_FIELD_NUMBER: _ClassVar[int]
    BOTH_VIEWS_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    ALIGN_MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    TAU_FIELD_NUMBER: _ClassVar[int]
    SGD_MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    SMASHED_DTYPE_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_DTYPE_FIELD_NUMBER: _ClassVar[int]
    SMASHED_SHAPE_FIELD_NUMBER: _ClassVar[int]
    NUM_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    HEAD_DIGEST_FIELD_NUMBER: _ClassVar[int]
    seed: int
    network: Network
    views: Views
    image_size: int
    mean: _containers.RepeatedScalarFieldContainer[float]
    std: _containers.RepeatedScalarFieldContainer[float]
    batch_size: int
    steps_per_round: int
    both_views: bool
    frozen: bool
    align_momentum: bool
    tau: float
    sgd_momentum: float
    weight_decay: float
    smashed_dtype: Dtype
    compute_dtype: Dtype
    smashed_shape: _containers.RepeatedScalarFieldContainer[int]
    num_parameters: int
    head_digest: str
    def __init__(self, seed: _Optional[int] = ..., network: _Optional[_Union[Network, _Mapping]] = ..., views: _Optional[_Union[Views, _Mapping]] = ..., image_size: _Optional[int] = ..., mean: _Optional[_Iterable[float]] = ..., std: _Optional[_Iterable[float]] = ..., batch_size: _Optional[int] = ..., steps_per_round: _Optional[int] = ..., both_views: _Optional[bool] = ..., frozen: _Optional[bool] = ..., align_momentum: _Optional[bool] = ..., tau: _Optional[float] = ..., sgd_momentum: _Optional[float] = ..., weight_decay: _Optional[float] = ..., smashed_dtype: _Optional[_Union[Dtype, str]] = ..., compute_dtype: _Optional[_Union[Dtype, str]] = ..., smashed_shape: _Optional[_Iterable[int]] = ..., num_parameters: _Optional[int] = ..., head_digest: _Optional[str] = ...) -> None: ...

class Network(_message.Message):
    __slots__ = ("backbone", "width", "cut_layer", "bottleneck_channels", "bottleneck_stride", "bottleneck_kernel", "bottleneck_relu", "client_residual")
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    CUT_LAYER_FIELD_NUMBER: _ClassVar[int]
    BOTTLENECK_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    BOTTLENECK_STRIDE_FIELD_NUMBER: _ClassVar[int]
    BOTTLENECK_KERNEL_FIELD_NUMBER: _ClassVar[int]
    BOTTLENECK_RELU_FIELD_NUMBER: _ClassVar[int]
    CLIENT_RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    backbone: str
    width: int
    cut_layer: int
    bottleneck_channels: int
    bottleneck_stride: int
    bottleneck_kernel: int
    bottleneck_relu: bool
    client_residual: bool
    def __init__(self, backbone: _Optional[str] = ..., width: _Optional[int] = ..., cut_layer: _Optional[int] = ..., bottleneck_channels: _Optional[int] = ..., bottleneck_stride: _Optional[int] = ..., bottleneck_kernel: _Optional[int] = ..., bottleneck_relu: _Optional[bool] = ..., client_residual: _Optional[bool] = ...) -> None: ...

class Views(_message.Message):
    __slots__ = ("crop_scale_min", "crop_scale_max", "ratio_min", "ratio_max", "brightness", "contrast", "saturation", "hue", "jitter_probability", "grey_probability", "blur_probability", "blur_sigma_min", "blur_sigma_max", "flip_probability")
    CROP_SCALE_MIN_FIELD_NUMBER: _ClassVar[int]
    CROP_SCALE_MAX_FIELD_NUMBER: _ClassVar[int]
    RATIO_MIN_FIELD_NUMBER: _ClassVar[int]
    RATIO_MAX_FIELD_NUMBER: _ClassVar[int]
    BRIGHTNESS_FIELD_NUMBER: _ClassVar[int]
    CONTRAST_FIELD_NUMBER: _ClassVar[int]
    SATURATION_FIELD_NUMBER: _ClassVar[int]
    HUE_FIELD_NUMBER: _ClassVar[int]
    JITTER_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    GREY_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    BLUR_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    BLUR_SIGMA_MIN_FIELD_NUMBER: _ClassVar[int]
    BLUR_SIGMA_MAX_FIELD_NUMBER: _ClassVar[int]
    FLIP_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    crop_scale_min: float
    crop_scale_max: float
    ratio_min: float
    ratio_max: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    jitter_probability: float
    grey_probability: float
    blur_probability: float
    blur_sigma_min: float
    blur_sigma_max: float
    flip_probability: float
    def __init__(self, crop_scale_min: _Optional[float] = ..., crop_scale_max: _Optional[float] = ..., ratio_min: _Optional[float] = ..., ratio_max: _Optional[float] = ..., brightness: _Optional[float] = ..., contrast: _Optional[float] = ..., saturation: _Optional[float] = ..., hue: _Optional[float] = ..., jitter_probability: _Optional[float] = ..., grey_probability: _Optional[float] = ..., blur_probability: _Optional[float] = ..., blur_sigma_min: _Optional[float] = ..., blur_sigma_max: _Optional[float] = ..., flip_probability: _Optional[float] = ...) -> None: ...

class StepRequest(_message.Message):
    __slots__ = ("step", "round", "number", "first_row", "num_rows", "learning_rate", "sync_after", "head")
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FIRST_ROW_FIELD_NUMBER: _ClassVar[int]
    NUM_ROWS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    SYNC_AFTER_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    step: int
    round: int
    number: int
    first_row: int
    num_rows: int
    learning_rate: float
    sync_after: bool
    head: Head
    def __init__(self, step: _Optional[int] = ..., round: _Optional[int] = ..., number: _Optional[int] = ..., first_row: _Optional[int] = ..., num_rows: _Optional[int] = ..., learning_rate: _Optional[float] = ..., sync_after: _Optional[bool] = ..., head: _Optional[_Union[Head, _Mapping]] = ...) -> None: ...

class Smashed(_message.Message):
    __slots__ = ("step", "query", "key")
    STEP_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    step: int
    query: Tensor
    key: Tensor
    def __init__(self, step: _Optional[int] = ..., query: _Optional[_Union[Tensor, _Mapping]] = ..., key: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Gradient(_message.Message):
    __slots__ = ("step", "query")
    STEP_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    step: int
    query: Tensor
    def __init__(self, step: _Optional[int] = ..., query: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Weights(_message.Message):
    __slots__ = ("step", "online", "momentum")
    STEP_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    step: int
    online: Tensor
    momentum: Tensor
    def __init__(self, step: _Optional[int] = ..., online: _Optional[_Union[Tensor, _Mapping]] = ..., momentum: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("step", "online", "momentum")
    STEP_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    step: int
    online: Tensor
    momentum: Tensor
    def __init__(self, step: _Optional[int] = ..., online: _Optional[_Union[Tensor, _Mapping]] = ..., momentum: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Keep(_message.Message):
    __slots__ = ("step",)
    STEP_FIELD_NUMBER: _ClassVar[int]
    step: int
    def __init__(self, step: _Optional[int] = ...) -> None: ...

class Kept(_message.Message):
    __slots__ = ("step",)
    STEP_FIELD_NUMBER: _ClassVar[int]
    step: int
    def __init__(self, step: _Optional[int] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("reason", "count", "limit")
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    count: int
    limit: int
    def __init__(self, reason: _Optional[str] = ..., count: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("finished", "text")
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    finished: bool
    text: str
    def __init__(self, finished: _Optional[bool] = ..., text: _Optional[str] = ...) -> None: ...
