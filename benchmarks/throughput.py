"""Streams against frames/s and latency: our server beside the bare runtime loop, and beside other servers.

Our server runs as a process of its own and is loaded by another one with 1 to 16 streams. In turns with it runs the
bare loop: the same graphs on the same frames, decoding and encoding too, in one thread without gRPC. Then MLServer,
Ray Serve and Triton serve the per-frame network (one DeepLab per frame, no key frames) over their own streaming, each
in turns with ours; each is installed into an environment of its own the first time, from PyPI, and skipped with a word
where that fails. All run as many threads in one run of a graph, take the same encoded frames and answer with the same
label maps as PNG. Without a BUNDLE, networks with random weights are exported: fit for time, not for mean IoU. Writes
OUT.json, tables as OUT.md, a plot as OUT.png, and OUT.log.
"""

import base64
import contextlib
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.throughput_accuracy import served_mean_iou, why_no_accuracy
from benchmarks.throughput_contestants import (
    ContestantError,
    LineProcess,
    flowseg_server,
    python_module,
    started,
)
from benchmarks.throughput_environments import PEERS, PeerOptions, SkippedError, serving_peer
from benchmarks.throughput_measurement import BARE, BARE_PER_FRAME, ECHO, LOCKSTEP, OURS, Contest, take_rounds
from benchmarks.throughput_plan import Options, Plan, make_plan, write_frames
from benchmarks.throughput_plot import draw_plot
from benchmarks.throughput_report import GOAL_KEY_FRAMES, goals, tables
from benchmarks.throughput_turns import Turn
from benchmarks.training_step import machine
from serving.bundle import Bundle
from serving.label_maps import decode_png
from serving.videos import VideoError
from training.command_line import logging_to_file, logging_to_stderr, user_errors_exit_with_2
from training.run_directory import commit, versions, write_aside

logger = logging.getLogger(__name__)
START_S = 60.0  # that a process of ours may take to start


@dataclass(frozen=True)
class Stage:
    """Processes that stay for all phases."""

    plan: Plan
    folder: Path  # of logs
    load: LineProcess  # of our server
    server: LineProcess  # ours
    address: str  # of ours
    bare: LineProcess
    bare_per_frame: LineProcess
    per_frame_answer: str  # of the bare loop to the first frame, a PNG in base 64

    def turn(self, streams: int, key_frames: str, in_flight: int = LOCKSTEP) -> Turn:
        """A turn of the length that was asked for."""
        return Turn(
            streams=streams, in_flight=in_flight, seconds=self.plan.options.seconds,
            warm_up_s=self.plan.options.warm_up, key_frames=key_frames,
        )  # fmt: skip

    def ours(self, streams: int, key_frames: str, in_flight: int = LOCKSTEP) -> Contest:
        """A turn of our server."""
        return Contest(OURS, self.load, self.turn(streams, key_frames, in_flight), self.server.process.pid)

    def bare_loop(self, key_frames: str) -> Contest:
        """A turn of the bare loop."""
        return Contest(BARE, self.bare, self.turn(1, key_frames), self.bare.process.pid)

    def per_frame_loop(self) -> Contest:
        """A turn of the bare loop of the per-frame network."""
        return Contest(BARE_PER_FRAME, self.bare_per_frame, self.turn(1, "1"), self.bare_per_frame.process.pid)


@contextlib.contextmanager
def set_up(plan: Plan, folder: Path) -> Iterator[Stage]:
    """Starts what stays.

    Raises:
        ContestantError: if something does not start.
    """
    logs = folder / "logs"
    graphs = plan.graph_arguments
    frames = ["--frames", str(folder / "frames"), "--encoding", plan.options.encoding]
    if plan.options.encoding == "raw":
        frames += ["--height", str(plan.frame_size[0]), "--width", str(plan.frame_size[1])]
    with contextlib.ExitStack() as stack:

        def bare_loop(name: str, bundle: Bundle) -> tuple[LineProcess, str]:
            process = python_module(
                "throughput_bare", logs / f"{name}.log", "--bundle", str(bundle.folder), *graphs, *frames
            )
            return process, stack.enter_context(started(process, START_S))["labels"]

        server = flowseg_server(plan.bundle.folder, logs / "server.log", *graphs)
        ready = stack.enter_context(started(server, START_S))
        address = f"{ready['host']}:{ready['port']}"
        load = python_module("throughput_load", logs / "load.log", *frames, "--server", address)
        stack.enter_context(started(load, START_S))
        bare, _ = bare_loop("bare", plan.bundle)
        bare_per_frame, answer = bare_loop("bare-per-frame", plan.per_frame)
        yield Stage(plan, folder, load, server, address, bare, bare_per_frame, answer)


def our_phase(stage: Stage) -> list[dict[str, Any]]:
    """Rows of our server and the bare loops."""
    plan = stage.plan
    contests = [stage.bare_loop(key_frames) for key_frames in plan.key_frames if key_frames != "adaptive"]
    contests += [stage.ours(1, key_frames) for key_frames in plan.key_frames]
    contests += [
        stage.ours(streams, keys, plan.options.in_flight) for keys in plan.key_frames for streams in plan.streams
    ]
    return take_rounds([*contests, stage.per_frame_loop()], plan.options.rounds, OURS)


def clients_alone(stage: Stage) -> list[dict[str, Any]]:
    """Rows of the load generator against a server that answers at once: what limits nobody."""
    plan = stage.plan
    frames = ["--frames", str(stage.folder / "frames"), "--echo"]
    echo = python_module("throughput_load", stage.folder / "logs" / "echo.log", *frames)
    with started(echo, START_S):
        levels = sorted({plan.streams[0], plan.streams[-1]})
        turns = [stage.turn(streams, GOAL_KEY_FRAMES, plan.options.in_flight) for streams in levels]
        return take_rounds([Contest(ECHO, echo, turn, None) for turn in turns], 1, OURS)


def peer_phase(stage: Stage, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of a peer and of ours in turns with it, and what there is to say about the peer."""
    plan = stage.plan
    options = PeerOptions(
        model=plan.per_frame_graph, runtime=plan.runtime, runtime_version=versions()[plan.runtime],
        threads=plan.options.threads, frames=stage.folder / "frames", encoding=plan.options.encoding,
        size=plan.frame_size,
    )  # fmt: skip
    try:
        with serving_peer(plan.options.peers_dir, name, options, stage.folder / "logs") as (client, answer):
            agreement = np.mean(_labels(answer) == _labels(stage.per_frame_answer))
            contests = [Contest(name, client, stage.turn(1, "1"), None)]
            for streams in plan.streams:
                contests.append(Contest(name, client, stage.turn(streams, "1", plan.options.in_flight), None))
                if GOAL_KEY_FRAMES in plan.key_frames:
                    contests.append(stage.ours(streams, GOAL_KEY_FRAMES, plan.options.in_flight))
            rows = take_rounds([*contests, stage.per_frame_loop()], plan.options.rounds, name)
            return rows, {"title": PEERS[name].title, "label_agreement": float(agreement)}
    except (SkippedError, ContestantError) as error:
        logger.warning("%s is skipped: %s", PEERS[name].title, error)
        return [], {"title": PEERS[name].title, "skipped": " ".join(str(error).split())}


def _labels(answer: str) -> Any:  # NumPy's
    return decode_png(base64.b64decode(answer))


def mean_ious(stage: Stage) -> dict[str, float | str]:
    """Of our network with the goal's key frames, and of the per-frame network; or why there is none."""
    plan = stage.plan
    found: dict[str, float | str] = {"ours": why_no_accuracy(plan.bundle), "per_frame": why_no_accuracy(plan.per_frame)}
    if not found["ours"]:
        found["ours"] = round(served_mean_iou(stage.address, plan.size, int(GOAL_KEY_FRAMES)), 2)
    if not found["per_frame"]:
        log = stage.folder / "logs" / "server-per-frame.log"
        server = flowseg_server(plan.per_frame.folder, log, *plan.graph_arguments)
        with started(server, START_S) as ready:
            found["per_frame"] = round(served_mean_iou(f"{ready['host']}:{ready['port']}", plan.size, 1), 2)
    return found


def run(options: Options) -> dict[str, Any]:
    """Measures, writes the files and returns the report."""
    at_commit = commit()  # before the log changes the tree
    with logging_to_file(options.out.with_suffix(".log"), "w"), tempfile.TemporaryDirectory() as temporary:
        computer = machine(torch.device("cpu"))  # before this command makes it busy itself
        plan = make_plan(options)
        write_frames(Path(temporary) / "frames", plan)
        with set_up(plan, Path(temporary)) as stage:
            rows = clients_alone(stage) + our_phase(stage)
            miou = mean_ious(stage)
            peers: dict[str, Any] = {}
            for name in plan.peers:
                peer_rows, peers[name] = peer_phase(stage, name)
                rows += peer_rows
        report: dict[str, Any] = {
            "options": plan.chosen(),
            "machine": computer, "versions": versions(), "commit": at_commit,
            "network": plan.bundle.manifest.name, "per_frame_network": plan.per_frame.manifest.name,
            "runtime": plan.runtime_description,
            "frames": {"size": f"{plan.frame_size[0]}x{plan.frame_size[1]}", "encoding": options.encoding},
            "rows": rows, "miou": miou, "peers": peers, "goals": goals(rows),
        }  # fmt: skip
        text, markdown, figure = json.dumps(report, indent=1) + "\n", tables(report), draw_plot(report)
        write_aside(options.out.with_suffix(".json"), lambda path: path.write_text(text, encoding="utf-8"))
        write_aside(options.out.with_suffix(".md"), lambda path: path.write_text(markdown, encoding="utf-8"))
        write_aside(options.out.with_suffix(".png"), lambda path: figure.savefig(path, format="png", dpi=110))
        logger.info("wrote %s, .md and .png", options.out.with_suffix(".json").name)
    return report


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m benchmarks.throughput", description=__doc__)
    with user_errors_exit_with_2(ValueError, VideoError, ContestantError):
        report = run(options)
        sys.stdout.write(json.dumps(report, indent=1) + "\n" if options.json else tables(report))


if __name__ == "__main__":
    main()
