"""The bundle that comes with the package, and the server that serves it unasked."""

import re

import numpy as np

from serving.bundle import SIGNALS, read_bundle
from serving.engine import open_engine
from serving.options import READY_BUNDLE, ServerOptions

MAX_MEGABYTES = 16


def test_it_is_small_and_whole() -> None:
    manifest = read_bundle(READY_BUNDLE).manifest
    assert sum(path.stat().st_size for path in READY_BUNDLE.iterdir()) <= MAX_MEGABYTES * 1e6
    assert {variant.precision for variant in manifest.variants} == {"int8", "fp16"}
    runtimes = {runtime for variant in manifest.variants for runtime in variant.runtimes}
    assert runtimes == {"onnxruntime-cpu", "onnxruntime-cuda", "openvino", "tensorrt"}


def test_it_lost_no_accuracy_that_its_manifest_does_not_tell() -> None:
    manifest = read_bundle(READY_BUNDLE).manifest
    for variant, figures in zip(manifest.variants, manifest.verification["variants"], strict=True):
        if variant.precision == "int8":
            miou, of_network = figures["miou"], figures["miou_of_network"]
            assert isinstance(miou, float)
            assert isinstance(of_network, float)
            assert miou >= of_network - 0.5


def test_it_tells_nothing_of_the_machine_it_was_made_on() -> None:
    for path in READY_BUNDLE.iterdir():
        assert not re.search(rb"/(home|root|tmp|work|Users)/", path.read_bytes()), path.name


def test_its_model_card_has_the_figures_of_its_manifest() -> None:
    card = (READY_BUNDLE / "README.md").read_text(encoding="utf-8")
    verification = read_bundle(READY_BUNDLE).manifest.verification
    for figures in verification["variants"]:
        if "miou" in figures:
            assert f"{figures['miou']:.1f}" in card
        assert f"{100 * float(str(figures['label_agreement'])):.2f}" in card


def test_its_model_card_has_the_baseline_of_its_manifest() -> None:
    card = (READY_BUNDLE / "README.md").read_text(encoding="utf-8")
    baseline = read_bundle(READY_BUNDLE).manifest.baseline
    assert baseline is not None
    assert set(baseline.domains) == {"source", "target"}
    for domain in baseline.domains.values():
        cells = [f"{domain.signals[name].mean:.3f} ± {domain.signals[name].std:.3f}" for name in SIGNALS]
        assert f"| {' | '.join(cells)} |" in card


def test_a_server_serves_it_if_it_is_told_no_bundle() -> None:
    options = ServerOptions()
    options.check()
    assert options.bundles == (READY_BUNDLE,)


def test_it_answers() -> None:
    with open_engine(READY_BUNDLE, threads=1) as engine, engine.open_stream(key_frame_interval=2) as stream:
        assert engine.variant.precision == "int8"
        size = (engine.variant.height, engine.variant.width)
        for value in (0, 128, 255):
            labels = stream.submit(np.full((*size, 3), value, np.uint8)).result(timeout=60).labels
            assert labels.shape == size
            assert labels.max() < len(engine.bundle.manifest.classes)
