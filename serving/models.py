"""The models of a server by name and version, from when their bundles are read until their last stream has ended."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from serving.bundle import Bundle, BundleError, Variant
from serving.drift import MODEL_MEMORY, DriftMeter
from serving.engine import Engine
from serving.errors import (
    InvalidRequestError,
    LastModelError,
    ModelExistsError,
    ModelNotFoundError,
    StreamLimitError,
    UnavailableError,
)
from serving.frames import Size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.graphs import GraphRun
from serving.key_frames import FixedInterval, KeyFramePolicy
from serving.runtimes.runtime import Runtime
from serving.stream import Stream


@dataclass(eq=False)
class ServedModel:
    """One variant of a bundle, and an engine for each device once it is loaded."""

    bundle: Bundle
    variant: Variant
    runtimes: tuple[Runtime, ...]  # one for each device, all of one kind
    max_streams: int  # on all devices together
    max_batch: int  # frames
    engines: list[Engine] = field(default_factory=list)
    is_retiring: bool = False  # takes no new streams
    drift: DriftMeter = field(init=False)  # of all its streams together

    def __post_init__(self) -> None:
        """Begins to tell drift."""
        self.drift = DriftMeter(self.bundle.manifest.baseline, MODEL_MEMORY)

    @property
    def label(self) -> str:
        """Name and version, as clients and metrics have it."""
        return f"{self.name}@{self.bundle.manifest.version}"

    @property
    def name(self) -> str:
        """Without the version."""
        return self.bundle.manifest.name

    @property
    def size(self) -> Size:
        """Of the frames the model works on."""
        return Size(self.variant.width, self.variant.height)

    @property
    def num_streams(self) -> int:
        """How many streams are open."""
        return sum(engine.num_streams for engine in self.engines)

    @property
    def state(self) -> pb.ModelState:
        """Whether streams can be opened, and if not, why."""
        if not self.engines:
            return pb.MODEL_STATE_LOADING
        if not any(engine.is_alive for engine in self.engines):
            return pb.MODEL_STATE_STOPPED
        return pb.MODEL_STATE_RETIRING if self.is_retiring else pb.MODEL_STATE_READY

    @property
    def is_ready(self) -> bool:
        """Whether streams can be opened."""
        return self.state == pb.MODEL_STATE_READY

    @property
    def has_stopped(self) -> bool:
        """Whether an engine broke."""
        return not all(engine.is_alive for engine in self.engines)

    def load(self, observe: Callable[[GraphRun], None]) -> None:
        """Loads the graphs on each device and warms them up; takes its time.

        Raises:
            BundleError: if they cannot be run.
        """
        engines: list[Engine] = []
        try:
            for runtime in self.runtimes:
                engine = Engine(
                    self.bundle,
                    self.variant,
                    runtime,
                    max_streams=self.max_streams,
                    max_batch=self.max_batch,
                    observe=observe,
                )
                engines.append(engine)
                engine.warm_up()
        except BaseException:
            for engine in engines:
                engine.close()
            raise
        self.engines = engines

    def open_stream(self, policy: KeyFramePolicy, capacity: int) -> Stream:
        """Opens a stream on the device with the fewest.

        Args:
            policy: when to refresh the key state. A fixed interval is shorter at first beside other streams, so that
                streams that start together do not refresh together.
            capacity: frames that may wait.

        Raises:
            UnavailableError: while the model is not ready.
            StreamLimitError: if all streams are taken.
        """
        if not self.engines:
            raise UnavailableError(f"model {self.label} is loading: try again in a moment")
        alive = [engine for engine in self.engines if engine.is_alive]
        if not alive:
            raise UnavailableError(f"model {self.label} has stopped")
        if self.num_streams >= self.max_streams:
            raise StreamLimitError(f"all {self.max_streams} streams of the model are taken: try again later")
        engine = min(alive, key=lambda engine: engine.num_streams)
        if isinstance(policy, FixedInterval):
            policy = policy.staggered(engine.num_streams)
        return engine.open_stream(policy=policy, capacity=capacity)

    def close(self) -> None:
        """Ends all streams of the model."""
        for engine in self.engines:
            engine.close()

    def describe(self) -> pb.Model:
        """The model as clients see it."""
        manifest = self.bundle.manifest
        return pb.Model(
            name=manifest.name,
            version=manifest.version,
            classes=[
                pb.Class(name=info.name, red=info.color[0], green=info.color[1], blue=info.color[2])
                for info in manifest.classes
            ],
            precision=self.variant.precision,
            width=self.size.width,
            height=self.size.height,
            runtime=", ".join(runtime.description for runtime in self.runtimes),
            state=self.state,
            num_streams=self.num_streams,
        )


class Models:
    """The models of a server. For one thread at a time."""

    def __init__(self, models: list[ServedModel]) -> None:
        """Takes at least one model.

        Raises:
            BundleError: if two have the same name and version.
        """
        self._models = {model.label: model for model in models}
        if len(self._models) < len(models):
            raise BundleError("two bundles have the same name and version: serve one of them, or export with --version")

    def __iter__(self) -> Iterator[ServedModel]:
        """In the order they were added, with those that retire."""
        return iter(list(self._models.values()))

    def find(self, name: str) -> ServedModel:
        """The model called `name@version`, or the one that was added last of those called `name`.

        With an empty name it is the only model, whatever its version. Models that retire are not found.

        Raises:
            InvalidRequestError: if the name is empty and there are several.
            ModelNotFoundError: if there is none.
        """
        offered = [model for model in self if not model.is_retiring]
        labels = ", ".join(model.label for model in offered)
        if not name and len({model.name for model in offered}) > 1:
            raise InvalidRequestError("model", f"this server has several, name one of {labels}")
        found = [model for model in offered if name in ("", model.name, model.label)]
        if not found:
            raise ModelNotFoundError(f"there is no model {name[:130]!r}: this server has {labels}")
        return found[-1]

    def check_new(self, model: ServedModel) -> None:
        """Refuses a model whose name and version are taken.

        Raises:
            ModelExistsError: if they are.
        """
        if model.label in self._models:
            raise ModelExistsError(f"{model.label} is served already: export the new bundle with another --version")

    def add(self, model: ServedModel) -> list[ServedModel]:
        """Adds a loaded model; the others of its name retire, and are returned.

        Raises:
            ModelExistsError: if its name and version are taken.
        """
        self.check_new(model)
        retired = [other for other in self if other.name == model.name and not other.is_retiring]
        for other in retired:
            other.is_retiring = True
        self._models[model.label] = model
        return retired

    def retire(self, label: str) -> ServedModel:
        """Takes a model out of what is offered.

        Raises:
            ModelNotFoundError: if there is none of that name and version.
            LastModelError: if no other ready model would remain.
        """
        model = self._models.get(label)
        if model is None:
            raise ModelNotFoundError(f"there is no model {label[:130]!r}: name one as NAME@VERSION")
        ready = [other for other in self if other.state == pb.MODEL_STATE_READY and other is not model]
        if not ready:
            raise LastModelError(f"{label} is the last model that is ready: load another one first")
        model.is_retiring = True
        return model

    def take_finished(self) -> list[ServedModel]:
        """Removes the models that retire and have no stream, for the caller to close."""
        finished = [model for model in self if model.is_retiring and model.num_streams == 0]
        for model in finished:
            del self._models[model.label]
        return finished
