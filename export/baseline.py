"""What the signals of a bundle are where it was trained: the baseline that a server tells drift by.

Clips of the run's source and target domains go through the served path with a key frame as often as a server takes one
unasked, and the signals of all frames but the first of each clip are averaged. Of a data set with a held-out split
that one is taken: on frames that it was trained on a network is too sure of itself. A domain that is not at hand is
left out. It is measured on one variant, the first that was verified: others differ from it by what verification allows.
"""

import dataclasses
import logging
from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from export.calibration import spread
from export.verify import runtimes_on_cpu
from serving.bundle import SIGNALS, Baseline, Bundle, DomainBaseline, DomainName, Spread, Variant
from serving.engine import Engine
from serving.options import ServerOptions
from training.data import DataConfig, World
from training.progress import with_progress

logger = logging.getLogger(__name__)
NUM_CLIPS = 16  # of each domain, spread over the data
CLIP_FRAMES = 11  # one that is its own key frame, and key frames of every age twice at an interval of 5
KEY_FRAME_INTERVAL = ServerOptions.key_frame_interval


def measure_baseline(bundle: Bundle, variant: Variant, source: DataConfig, target: DataConfig) -> Baseline:
    """Streams clips of both domains through a variant.

    Args:
        bundle: where the variant's graphs are.
        variant: to measure.
        source: data that the run had labels of.
        target: data that it is meant for.
    """
    runtime = runtimes_on_cpu(variant)[0]
    data: dict[DomainName, DataConfig] = {"source": source, "target": target}
    domains: dict[DomainName, DomainBaseline] = {}
    with Engine(bundle, variant, runtime, max_streams=1, max_batch=1) as engine:
        for name, config in data.items():
            dataset = _open(config, (variant.height, variant.width))
            if dataset is None:
                logger.info("no frames of the %s are at hand: the bundle has no baseline of it", name)
            else:
                domains[name] = _measure(engine, dataset, name)
    return Baseline(
        key_frame_interval=KEY_FRAME_INTERVAL,
        measured_on=f"{variant.precision} {variant.height}x{variant.width}, {runtime.description}",
        domains=domains,
    )


def _measure(engine: Engine, dataset: Dataset[Any], name: str) -> DomainBaseline:
    clips = [frames for frames, _ in spread(dataset, NUM_CLIPS)]
    rows = []
    for frames in with_progress(clips, f"baseline of the {name}"):
        with engine.open_stream(key_frame_interval=KEY_FRAME_INTERVAL) as stream:
            results = [stream.submit(frame).result() for frame in frames]
        rows += [[getattr(result, signal) for signal in SIGNALS] for result in results[1:]]
    values = np.array(rows)
    signals = {
        signal: Spread(mean=float(column.mean()), std=float(column.std()))
        for signal, column in zip(SIGNALS, values.T, strict=True)
    }
    return DomainBaseline(frames=len(values), clip_frames=len(clips[0]), signals=signals)


def _open(config: DataConfig, size: tuple[int, int]) -> Dataset[Any] | None:
    """The data at a frame size, held out and in long clips if there are such; None if they are not at hand."""
    if isinstance(config, World):
        config = replace(config, render_on_access=True)  # or all its clips would be rendered at once
    held_out = [{"split": "val"}] if any(field.name == "split" for field in dataclasses.fields(config)) else []  # type: ignore[arg-type]  # all are dataclasses
    for changes in (*held_out, {}):
        for num_frames in (CLIP_FRAMES, max(config.num_frames, 2)):
            try:
                resized: DataConfig = replace(config, size=size, **changes)  # type: ignore[type-var]  # the same
                return resized.with_num_frames(num_frames).open()
            except (ValueError, OSError):
                continue
    return None
