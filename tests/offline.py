"""Trains, exports, serves and streams: a program that must need nothing but this machine. Says what it did."""

import json
import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.demo_serving import served
from export.to_onnx import export_bundle
from serving.client import SegmentationClient
from tests.export.conftest import train_small
from tests.loopback import allow_loopback_only, raise_loopback


def main() -> None:
    folder = Path(sys.argv[1])
    if sys.argv[2] == "isolated":
        raise_loopback()
    allow_loopback_only()
    os.umask(int(sys.argv[3], 8))
    run = train_small("per_frame", folder / "run")
    manifest = export_bundle(run, folder / "bundle", ((64, 64),), "offline", "1")
    frames = [np.full((64, 64, 3), value, np.uint8) for value in (10, 20, 30)]
    with (
        served(folder / "bundle", folder / "server.log") as address,
        SegmentationClient(address) as client,
        client.stream() as stream,
    ):
        answers = list(stream.segment(frames))
    report = {"model": manifest.name, "answered": sum(answer.labels is not None for answer in answers)}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
