"""From a bundle's folder to a model that serves, while the server runs or before it does."""

import asyncio
import functools
import logging
from pathlib import Path

from serving.bundle import BundleError, read_bundle
from serving.errors import ModelLoadError
from serving.graphs import pick_variant
from serving.models import Models, ServedModel
from serving.observability import Metrics
from serving.options import ServerOptions
from serving.runtimes.choice import open_runtime

logger = logging.getLogger(__name__)


def read_model(folder: Path, options: ServerOptions) -> ServedModel:
    """Reads and checks a bundle, without loading its graphs.

    Raises:
        BundleError: with one sentence that says what is wrong.
        ValueError: if there is no such device, or the runtime that was asked for is not there.
    """
    precision, size = options.precision, options.height_and_width()
    bundle = read_bundle(folder)
    runtimes = tuple(
        open_runtime(options.runtime, device, options.threads, bundle, precision, size) for device in options.devices()
    )
    return ServedModel(
        bundle,
        pick_variant(bundle, runtimes[0].name, precision, size),
        runtimes,
        max_streams=options.max_streams,
        max_batch=options.max_batch,
    )


class ModelLoader:
    """Loads models beside those that serve, one at a time, and unloads those that have retired."""

    def __init__(self, models: Models, options: ServerOptions, metrics: Metrics) -> None:
        """Adds to `models`."""
        self._models = models
        self._options = options
        self._metrics = metrics
        self._turn = asyncio.Lock()

    async def load(self, model: ServedModel) -> None:
        """Loads and warms up a model that was read, in a thread of its own.

        Raises:
            BundleError: if a graph cannot be run.
        """
        await asyncio.to_thread(model.load, self._metrics.watch_runs(model.label))
        self._metrics.watch_life(model.label, lambda: not model.has_stopped)
        self._metrics.watch_streams(model.label, functools.partial(getattr, model, "num_streams"))
        self._metrics.watch_drift(model.label, model.drift)
        if self._options.record_drift is not None and model.bundle.manifest.baseline is None:
            logger.warning("%s has no baseline, so nothing of its streams is recorded: export it again", model.label)
        logger.info(
            "%s is warm: %s for frames of %s pixels on %s",
            model.label,
            model.variant.precision,
            model.size,
            ", ".join(runtime.description for runtime in model.runtimes),
        )

    async def add(self, folder: Path) -> tuple[ServedModel, list[ServedModel]]:
        """Reads, loads and serves a bundle. Whatever is wrong with it, what is served goes on to be.

        Returns:
            The model, and those that retire for it.

        Raises:
            ModelLoadError: if the bundle cannot be served.
            ModelExistsError: if its name and version are served.
        """
        async with self._turn:
            try:
                model = await asyncio.to_thread(read_model, folder, self._options)
                self._models.check_new(model)
                await self.load(model)
            except (BundleError, ValueError, OSError) as error:
                raise ModelLoadError(str(error)) from error
            retired = self._models.add(model)
        logger.info("%s is served now%s", model.label, "".join(f", {other.label} retires" for other in retired))
        await self.unload_finished()
        return model, retired

    async def refresh(self) -> list[tuple[ServedModel, list[ServedModel]]]:
        """Reads the bundles of the command line again, and serves those of a new name or version."""
        added = []
        for folder in self._options.bundles:
            try:
                served = {model.label for model in self._models}
                if (await asyncio.to_thread(read_model, folder, self._options)).label not in served:
                    added.append(await self.add(folder))
            except (ModelLoadError, ValueError) as error:
                logger.warning("%s is not reloaded: %s", folder, error)
        return added

    async def unload_finished(self) -> None:
        """Unloads the models that have retired and have no stream."""
        for model in self._models.take_finished():
            self._metrics.forget(model.label)
            await asyncio.to_thread(model.close)
            logger.info("%s is unloaded", model.label)
