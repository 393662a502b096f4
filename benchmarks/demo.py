"""The main job on the embedded world: adapt, export, verify, serve, stream. `make demo` runs it.

SFC is trained as published, beside its controls; what is exported and served is the recipe that closes most of the gap.
Leaves in --out: report.json, report.png, bundle/, street.mp4 (what was streamed), overlay.mp4, labels/, logs/ and a run
directory per stage in stages/. A second call after an interruption goes on with the first unfinished stage.
"""

import dataclasses
import functools
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
from benchmarks.demo_serving import ServerError, stream_through_server, write_street
from export.to_onnx import export_bundle
from export.verify import VerificationError
from serving.bundle import BundleError, Manifest, read_bundle
from serving.client import CallError
from serving.videos import open_video
from training.command_line import Machine, choose_device, logging_to_file, logging_to_stderr, user_errors_exit_with_2
from training.data.unlabelled import Unlabelled
from training.metrics import mean_iou
from training.models.accel import Accel
from training.models.optical_flow import FlowNet
from training.models.video_segmenter import VideoSegmenter
from training.recipes import RECIPES, RECOMMENDED
from training.recipes.demo import SOURCE_VALIDATION_FLOW, TARGET, TARGET_VALIDATION, TARGET_VALIDATION_FLOW
from training.run_directory import Run, RunError, commit, versions, write_aside
from training.target_statistics import with_target_statistics
from training.train import train_unless_finished
from training.trainer import TrainingError
from training.validation import flow_error, segmentation_confusion

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

# In this order each stage finds what it starts from beside it.
STAGES = (
    "demo-source-only-one", "demo-flow", "demo-source-only", "demo-sfm", "demo-control-one", "demo-control",
    "demo-sfc-one", "demo", "demo-augmented-one", "demo-augmented", f"{RECOMMENDED}-one", RECOMMENDED,
    "demo-long-target-only-one", "demo-long-target-only",
)  # fmt: skip
SEGMENTERS = {  # row of the report -> stage
    "source_only": "demo-source-only",
    "control_without_flow_loss": "demo-control",
    "adapted": "demo",
    "augmented_source": "demo-augmented",
    "recommended": RECOMMENDED,
    "target_only": "demo-long-target-only",
}
STATISTICS_BATCH = 4  # target clips forwarded at once
PICTURED = (0, 10, 20, 30)  # validation clips


@dataclass(frozen=True)
class Options:
    """Options of `benchmarks.demo`."""

    out: Path = Path("runs/demo")  # folder to write
    video: Path | None = None  # your own video to stream through the bundle; without it a street is rendered
    seed: int = 0  # of weights and order of the data
    device: str = "auto"  # for training: "cpu", "cuda", ...; "auto" takes a GPU when there is one


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
        RunError: if the folder holds a finished demo, or one of another seed.
        VideoError: if there is no such video.
    """
    _refuse_wrong_calls(options)
    with logging_to_file(options.out / "logs" / "demo.log", "a"):
        return _run(options)


def _refuse_wrong_calls(options: Options) -> None:
    if (options.out / "report.json").exists():
        raise RunError(
            f"{options.out} holds a finished demo: look at report.json and report.png, or choose another --out"
        )
    if options.video is not None:
        open_video(str(options.video)).close()  # before minutes of training, not after


def _run(options: Options) -> dict[str, Any]:
    watch = Stopwatch()
    runs = {name: watch.time(name, functools.partial(_stage, name, options)) for name in STAGES}
    segmenters = {row: _segmenter(runs[stage]) for row, stage in SEGMENTERS.items()}
    plain, with_statistics = watch.time("evaluate", lambda: _target_miou(segmenters, options))
    flow_net = cast("Accel", segmenters["source_only"]).flownet
    cpu = choose_device("cpu")
    served = segmenters["recommended"].to(cpu)
    manifest = watch.time("export", lambda: _export(runs[RECOMMENDED], options.out / "bundle"))
    video = options.video or watch.time("render", lambda: _street(options.out / "street.mp4"))
    streamed = watch.time("serve", lambda: stream_through_server(options.out / "bundle", video, options.out, served))
    target_miou = plain | {"source_only_target_statistics": with_statistics["source_only"]}
    report: dict[str, Any] = {
        "target_miou": target_miou,
        "target_miou_with_target_statistics": with_statistics,
        "verdict": verdict(plain, with_statistics),
        "flow_epe": {
            "source": flow_error(flow_net.to(cpu), SOURCE_VALIDATION_FLOW, cpu)["epe"],
            "target": flow_error(flow_net, TARGET_VALIDATION_FLOW, cpu)["epe"],
        },
        "export": manifest.verification["variants"][0],
        "serving": {
            **dataclasses.asdict(streamed.summary),
            "label_agreement_with_torch": streamed.label_agreement_with_torch,
        },
        "seconds": watch.seconds | {"total": round(sum(watch.seconds.values()), 2)},
        "seed": options.seed,
        "versions": versions(),
        "commit": commit(),
    }
    _draw(options.out / "report.png", segmenters, runs["demo-sfm"], report["verdict"])
    text = json.dumps(report, indent=2) + "\n"
    write_aside(options.out / "report.json", lambda path: path.write_text(text, encoding="utf-8"))
    return report


def _stage(name: str, options: Options) -> Run:
    recipe = replace(RECIPES[name].recipe, seed=options.seed)
    return train_unless_finished(name, recipe, options.out / "stages" / name, Machine(options.device))


def _segmenter(run: Run) -> VideoSegmenter:
    return cast("VideoSegmenter", run.networks()["segmenter"])


def _target_miou(segmenters: dict[str, VideoSegmenter], options: Options) -> tuple[dict[str, float], dict[str, float]]:
    """Mean IoU of each network as it is, and with BatchNorm statistics re-estimated on target frames."""
    device = choose_device(options.device)
    classes = TARGET_VALIDATION.label_space.evaluated
    target = DataLoader(Unlabelled(TARGET.open()), STATISTICS_BATCH)
    plain, with_statistics = {}, {}
    for row, network in segmenters.items():
        plain[row] = mean_iou(segmentation_confusion(network.to(device), TARGET_VALIDATION, device), classes)
        if row != "target_only":  # its statistics are the target's already
            moved = cast("VideoSegmenter", with_target_statistics(network, target, device))
            with_statistics[row] = mean_iou(segmentation_confusion(moved, TARGET_VALIDATION, device), classes)
    return plain, with_statistics


def _export(run: Run, folder: Path) -> Manifest:
    if folder.exists():  # of a call that was interrupted later on
        return read_bundle(folder).manifest
    return export_bundle(run, folder, (TARGET.size,), "demo", "1")


def _street(path: Path) -> Path:
    if not path.exists():
        write_street(path, TARGET.look)
    return path


def _draw(path: Path, segmenters: dict[str, VideoSegmenter], sfm_run: Run, sentence: str) -> None:
    labelled, flows = TARGET_VALIDATION.open(), TARGET_VALIDATION_FLOW.open()
    cpu = choose_device("cpu")
    pictured = Pictured(
        clips=[labelled[index] for index in PICTURED],
        flows=[flows[index] for index in PICTURED],
        source_only=segmenters["source_only"].to(cpu),
        adapted=segmenters["adapted"].to(cpu),
        recommended=segmenters["recommended"].to(cpu),
        sfm=cast("FlowNet", sfm_run.networks()["sfm"]),
        label_space=TARGET_VALIDATION.label_space,
    )
    figure = draw_report(pictured, sentence)
    write_aside(path, lambda aside: figure.savefig(aside, format="png", dpi=110))


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m benchmarks.demo", description=__doc__)
    mistakes = (RunError, BundleError, TrainingError, VerificationError, ServerError, CallError, ValueError)
    with user_errors_exit_with_2(*mistakes):
        print_table(run_demo(options))
        logger.info("look at report.png, overlay.mp4 and report.json in %s", options.out)


if __name__ == "__main__":
    main()
