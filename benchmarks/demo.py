"""The main job on the embedded world: adapt, export, verify. `make demo` runs it.

Leaves in --out: report.json, report.png, bundle/ and stages/ (a run directory per stage). A second call after an
interruption goes on with the first unfinished stage.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import tyro
from torch.utils.data import DataLoader

from benchmarks.demo_report import Pictured, draw_report, print_table, verdict
from export.to_onnx import export_bundle
from export.verify import VerificationError
from serving.bundle import BundleError
from training.command_line import choose_device, logging_to_stderr, user_errors_exit_with_2
from training.data.unlabelled import Unlabelled
from training.metrics import mean_iou
from training.models.accel import Accel
from training.models.optical_flow import FlowNet
from training.models.video_segmenter import VideoSegmenter
from training.recipes import (
    RECIPES,
    SOURCE_VALIDATION_FLOW,
    TARGET,
    TARGET_VALIDATION,
    TARGET_VALIDATION_FLOW,
)
from training.run_directory import Run, RunError, commit, read_run, versions, write_aside
from training.target_statistics import with_target_statistics
from training.train import train_with_prerequisites
from training.trainer import TrainingError
from training.validation import flow_error, segmentation_confusion

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

# In this order each stage finds what it starts from beside it.
STAGES = (
    "demo-source-only-one", "demo-flow", "demo-source-only", "demo-sfm", "demo-control-one", "demo-control",
    "demo-sfc-one", "demo", "demo-target-only-one", "demo-target-only",
)  # fmt: skip
STATISTICS_BATCH = 4  # target clips forwarded at once
PICTURED = (0, 10, 20, 30)  # validation clips


@dataclass(frozen=True)
class Options:
    """Options of `benchmarks.demo`."""

    out: Path = Path("runs/demo")  # folder to write
    seed: int = 0  # of weights and order of the data
    device: str = "auto"  # "cpu", "cuda", ...; "auto" takes a GPU when there is one


@dataclass
class Stopwatch:
    """Seconds of each part of the job."""

    seconds: dict[str, float] = field(default_factory=dict)

    def time(self, name: str, work: Callable[[], Result]) -> Result:
        """Does the work and keeps how long it took."""
        logger.info("%s", name)
        started = time.monotonic()
        result = work()
        self.seconds[name] = round(time.monotonic() - started, 2)
        return result


def run_demo(options: Options) -> dict[str, Any]:
    """Does the main job and returns the report.

    Raises:
        RunError: if the folder holds a finished demo.
    """
    if (options.out / "report.json").exists():
        raise RunError(
            f"{options.out} holds a finished demo: look at report.json and report.png, or choose another --out"
        )
    watch = Stopwatch()
    runs = {name: watch.time(name, lambda name=name: _stage(name, options)) for name in STAGES}  # type: ignore[misc]  # a default binds the name
    segmenters = {name: _segmenter(runs[name]) for name in STAGES if "segmenter" in runs[name].networks()}
    target_miou = watch.time("evaluate", lambda: _target_miou(segmenters, options))
    flow_net = cast("Accel", segmenters["demo-source-only"]).flownet
    device = choose_device("cpu")
    manifest = watch.time(
        "export", lambda: export_bundle(runs["demo"], options.out / "bundle", (TARGET.size,), "demo", "1")
    )
    report: dict[str, Any] = {
        "target_miou": target_miou,
        "verdict": verdict(target_miou),
        "flow_epe": {
            "source": flow_error(flow_net, SOURCE_VALIDATION_FLOW, device)["epe"],
            "target": flow_error(flow_net, TARGET_VALIDATION_FLOW, device)["epe"],
        },
        "export": manifest.verification,
        "seconds": watch.seconds,
        "seed": options.seed,
        "versions": versions(),
        "commit": commit(),
    }
    labelled, flows = TARGET_VALIDATION.open(), TARGET_VALIDATION_FLOW.open()
    pictured = Pictured(
        clips=[labelled[index] for index in PICTURED],
        flows=[flows[index] for index in PICTURED],
        source_only=segmenters["demo-source-only"],
        adapted=segmenters["demo"],
        sfm=cast("FlowNet", runs["demo-sfm"].networks()["sfm"]),
        label_space=TARGET_VALIDATION.label_space,
    )
    figure = draw_report(pictured, report["verdict"])
    write_aside(options.out / "report.png", lambda path: figure.savefig(path, format="png", dpi=110))
    text = json.dumps(report, indent=2) + "\n"
    write_aside(options.out / "report.json", lambda path: path.write_text(text, encoding="utf-8"))
    return report


def _stage(name: str, options: Options) -> Run:
    folder = options.out / "stages" / name
    if folder.exists() and (run := read_run(folder)).is_finished():
        return run
    recipe = replace(RECIPES[name].recipe, seed=options.seed)
    return train_with_prerequisites(name, recipe, folder, options.device, resume=folder.exists())


def _segmenter(run: Run) -> VideoSegmenter:
    return cast("VideoSegmenter", run.networks()["segmenter"])


def _target_miou(segmenters: dict[str, VideoSegmenter], options: Options) -> dict[str, float]:
    device = choose_device(options.device)
    evaluated = {
        "source_only": segmenters["demo-source-only"],
        "control_without_flow_loss": segmenters["demo-control"],
        "adapted": segmenters["demo"],
        "target_only": segmenters["demo-target-only"],
    }
    target = DataLoader(Unlabelled(TARGET.open()), STATISTICS_BATCH)
    source_only = segmenters["demo-source-only"].to(device)
    with_statistics = with_target_statistics(source_only, target, device)
    evaluated["source_only_target_statistics"] = cast("VideoSegmenter", with_statistics)
    classes = TARGET_VALIDATION.label_space.evaluated
    return {
        name: mean_iou(segmentation_confusion(network.to(device), TARGET_VALIDATION, device), classes)
        for name, network in evaluated.items()
    }


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m benchmarks.demo", description=__doc__)
    with user_errors_exit_with_2(RunError, BundleError, TrainingError, VerificationError, ValueError):
        print_table(run_demo(options))
        logger.info("look at %s and %s", options.out / "report.json", options.out / "report.png")


if __name__ == "__main__":
    main()
