"""The models of a server by name and version, from the moment their bundles are read until they are warm and served."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from serving.bundle import Bundle, BundleError, Variant
from serving.engine import Engine
from serving.errors import InvalidRequestError, ModelNotFoundError, UnavailableError
from serving.frames import Size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.graphs import GraphRun
from serving.runtimes.runtime import Runtime


@dataclass(eq=False)
class ServedModel:
    """One variant of a bundle, and its engine once it is there."""

    bundle: Bundle
    variant: Variant
    runtime: Runtime
    max_streams: int
    max_batch: int  # frames
    loaded: Engine | None = None

    @property
    def label(self) -> str:
        """Name and version, as clients and metrics have it."""
        return f"{self.bundle.manifest.name}@{self.bundle.manifest.version}"

    @property
    def size(self) -> Size:
        """Of the frames the model works on."""
        return Size(self.variant.width, self.variant.height)

    @property
    def num_streams(self) -> int:
        """How many streams are open."""
        return 0 if self.loaded is None else self.loaded.num_streams

    @property
    def is_ready(self) -> bool:
        """Whether streams can be opened."""
        return self.loaded is not None and self.loaded.is_alive

    def load(self, observe: Callable[[GraphRun], None]) -> None:
        """Loads the graphs and warms them up; takes its time.

        Raises:
            BundleError: if they cannot be run.
        """
        engine = Engine(
            self.bundle,
            self.variant,
            self.runtime,
            max_streams=self.max_streams,
            max_batch=self.max_batch,
            observe=observe,
        )
        try:
            engine.warm_up()
        except BaseException:
            engine.close()
            raise
        self.loaded = engine

    def engine(self) -> Engine:
        """The engine, warm.

        Raises:
            UnavailableError: while it is not.
        """
        if self.loaded is None:
            raise UnavailableError(f"model {self.label} is loading: try again in a moment")
        if not self.loaded.is_alive:
            raise UnavailableError(f"model {self.label} has stopped")
        return self.loaded

    def close(self) -> None:
        """Ends all streams of the model."""
        if self.loaded is not None:
            self.loaded.close()

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
            runtime=self.runtime.description,
            ready=self.is_ready,
        )


class Models:
    """The models of a server."""

    def __init__(self, models: list[ServedModel]) -> None:
        """Takes at least one model.

        Raises:
            BundleError: if two have the same name and version.
        """
        self._models = {model.label: model for model in models}
        if len(self._models) < len(models):
            raise BundleError("two bundles have the same name and version: serve one of them, or export with --version")
        self._by_name = {model.bundle.manifest.name: model for model in models}  # of several versions, the last

    def __iter__(self) -> Iterator[ServedModel]:
        """In the order they were given."""
        return iter(self._models.values())

    def find(self, name: str) -> ServedModel:
        """The model called `name` or `name@version`; the only one if the name is empty.

        Raises:
            InvalidRequestError: if the name is empty and there are several.
            ModelNotFoundError: if there is none.
        """
        names = ", ".join(self._models)
        if not name and len(self._models) > 1:
            raise InvalidRequestError("model", f"this server has several, name one of {names}")
        found = (self._models | self._by_name).get(name) if name else next(iter(self))
        if found is None:
            raise ModelNotFoundError(f"there is no model {name[:130]!r}: this server has {names}")
        return found
