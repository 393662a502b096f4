"""Verdicts and reasons by hand, from made-up figures."""

from typing import Any

import pytest

from benchmarks.paper_report import correlation, report, table_text
from benchmarks.paper_results import put
from benchmarks.paper_tables import ACCEL, TABLES
from benchmarks.paper_verdicts import CONTRADICTED, HOLDS, UNSURE, Place, gap_closed, judge, verdicts

Results = dict[str, Any]


def results(**systems: tuple[list[float], list[float]]) -> Results:
    """Of table 1; of each system the mIoU of seeds 0, 1, ..., as trained and with target statistics."""
    cells = [
        {
            "classes": "viper", "target": "mid", "seed": seed, "system": system.replace("_", "-"), "commit": "abc",
            "as_trained": {"miou": plain}, "target_statistics": {"miou": moved},
        }
        for system, (trained, statistics) in systems.items()
        for seed, (plain, moved) in enumerate(zip(trained, statistics, strict=True))
    ]  # fmt: skip
    scale = {"name": "cpu", "size": [64, 128], "backbone": "resnet10_slim", "is_telling": True}
    return {
        "scale": scale, "data": "world", "tables": [1], "cells": cells, "figure_2": [], "figure_5": [],
        "failed_figures": [],
    }  # fmt: skip


CONFOUNDED = results(
    source_only=([20.0, 22.0], [40.0, 42.0]),
    control=([38.0, 40.0], [41.0, 43.0]),
    sfc=([37.5, 39.5], [41.0, 42.0]),
    sfc_tpl=([39.0, 41.5], [43.0, 44.0]),
    augmented=([43.0, 44.0], [46.0, 46.5]),
    target_only=([47.0, 48.0], [47.0, 48.0]),
)


def found(of: Results) -> dict[str, Any]:
    return {verdict.claim: verdict for verdict in verdicts(TABLES[1], Place(of, "viper", "mid"))}


def test_figures_are_means_with_their_range_beside_the_papers() -> None:
    lines = table_text(1, TABLES[1], Place(CONFOUNDED, "viper", "mid")).splitlines()
    assert "| SFC | 51.1 | 38.5 (37.5 to 39.5) | 66 (65 to 67) | 41.5 (41.0 to 42.0) | 77 (77 to 78) |" in lines
    assert (
        "| *source-only, BatchNorm statistics of the target* |  |  |  | 41.0 (40.0 to 42.0) | 75 (74 to 77) |" in lines
    )
    assert "| AdvEnt |  |  |  |  |  |" in lines  # neither the paper's figure is known nor ours


def test_a_gain_on_every_seed_holds() -> None:
    verdict = found(CONFOUNDED)["SFC above source-only"]
    assert (verdict.paper, verdict.ours, verdict.word, verdict.reason) == (
        "+13.7",
        "+17.50 (+17.50 to +17.50)",
        HOLDS,
        "",
    )


def test_a_flow_loss_that_gains_nothing_is_told_apart_from_batch_norm() -> None:
    verdict = found(CONFOUNDED)["SFC above SFC's training without the flow loss"]
    assert (verdict.paper, verdict.ours, verdict.word) == ("implied", "-0.50 (-0.50 to -0.50)", CONTRADICTED)
    for part in ("BatchNorm is the confound", "loss gains +18.0", "frames +20.0", "method +17.5", "is left -0.5"):
        assert part in verdict.reason


def test_what_plain_augmentation_reaches_is_said() -> None:
    verdict = found(CONFOUNDED)["SFC above source-only, source in random colours"]
    assert verdict.word == CONTRADICTED
    assert "Random colours of the source gain +22.5 over source-only" in verdict.reason


def test_without_a_gap_nothing_can_be_shown() -> None:
    of = results(source_only=([20.0], [20.0]), sfc=([19.0], [20.0]), target_only=([21.5], [21.5]))
    assert "lie 1.5 points" in found(of)["SFC above source-only"].reason


def test_one_seed_shows_nothing() -> None:
    of = results(source_only=([20.0], [20.0]), sfc=([30.0], [30.0]), target_only=([40.0], [40.0]))
    verdict = found(of)["SFC above source-only"]
    assert (verdict.word, verdict.reason) == (UNSURE, "One seed: the difference may be chance. Run more seeds.")


def test_an_order_that_target_statistics_restore_is_said() -> None:
    of = results(sfc=([30.0, 30.0], [30.0, 30.0]), sfc_tpl=([29.0, 29.0], [33.0, 32.0]))
    verdict = found(of)["SFC with TPL above SFC"]
    assert verdict.word == CONTRADICTED
    assert "With target statistics on both rows the order is the paper's (+2.50 (+2.00 to +3.00))" in verdict.reason


def test_a_method_that_harms_as_much_as_its_control_is_not_blamed_for_it() -> None:
    of = results(
        source_only=([30.0, 31.0], [30.0, 31.0]), control=([28.0, 28.0], [0.0, 0.0]), sfc=([28.0, 29.0], [0, 0])
    )
    assert "does not gain over source-only either (-2.5)" in found(of)["SFC above source-only"].reason


@pytest.mark.parametrize(
    ("gains", "word"),
    [
        ([1.0, 0.1], HOLDS),
        ([1.0, -0.1], UNSURE),
        ([5.0], UNSURE),
        ([-5.0], UNSURE),
        ([0.0, 0.0], CONTRADICTED),
        ([-2.0, 1.0], CONTRADICTED),
    ],
)
def test_verdicts(gains: list[float], word: str) -> None:
    assert judge(gains) == word


def test_only_seeds_that_both_rows_have_are_compared() -> None:
    of = results(source_only=([20.0], [20.0]), sfc=([30.0, 90.0], [30.0, 90.0]))
    assert found(of)["SFC above source-only"].ours == "+10.00"


def test_a_reason_that_several_claims_share_is_told_once() -> None:
    of = results(
        source_only=([20.0], [20.0]), sfc=([19.0], [20.0]), sfc_tpl=([18.0], [18.0]), target_only=([21.0], [0.0])
    )
    assert report(of).count("there is hardly a gap") == 1


def test_what_choosing_without_labels_costs_is_told_once_for_each_training() -> None:
    of = results(r1=([40.0, 41.0], [40.0, 41.0]))
    for cell, chosen in zip(of["cells"], (39.0, 40.0), strict=True):
        cell["choices"] = [{"recipe": "demo-r1-one", "chosen": chosen, "last": 40.0, "best": 42.0}]
    text = table_text(1, TABLES[1], Place(of, "viper", "mid"))
    told = (
        "- demo-r1-one: 39.5 (39.0 to 40.0); the last one 40.0 (40.0 to 40.0), the best by labels 42.0 (42.0 to 42.0)."
    )
    assert text.splitlines()[-1] == told


def test_figure_5_tells_whether_both_fall_together() -> None:
    falling = [{"step": step, "miou": 10.0 + step, "epe": 1.0 - 0.1 * step} for step in range(3)]
    assert correlation(falling) == pytest.approx(-1)
    assert correlation(falling[:1]) is None
    assert correlation([{**point, "epe": 1.0} for point in falling]) is None
    of = results() | {
        "figure_5": [
            {"classes": "viper", "target": "mid", "seed": 0, "curves": {"sfc-one": falling, "control-one": falling[:1]}}
        ]
    }
    assert "- SFC: -1.00, as in the paper\n- without the flow loss: undefined" in report(of)


def test_figure_2_tells_what_each_network_loses() -> None:
    pairs = {
        "segnet source, flow source": 20.0, "segnet target, flow source": 50.0, "segnet source, flow target": 21.0,
        "segnet target, flow target": 52.0,
    }  # fmt: skip
    entry = {
        "classes": "viper", "target": "mid", "seed": 0, "as_trained": pairs, "target_statistics": pairs,
        "epe": {domain: {"epe": epe, "epe_of_no_flow": 1.0} for domain, epe in (("source", 0.45), ("target", 0.37))},
    }  # fmt: skip
    lines = report(results() | {"figure_2": [entry]}).splitlines()
    assert "| SegNet, FlowNet of the source | 30.0 | 30.0 |" in lines
    assert "| FlowNet, SegNet of the target | 2.0 | 2.0 |" in lines
    assert any("of the source 0.450, of the target 0.370, no flow 1.000" in line for line in lines)


def test_figure_2_tells_how_much_of_the_fall_is_statistics() -> None:
    names = ("segnet source, flow source", "segnet target, flow source", "segnet source, flow target")
    pairs = dict(zip((*names, "segnet target, flow target"), (20.0, 50.0, 21.0, 52.0), strict=True))
    moved = pairs | {"segnet source, flow source": 43.0}
    entries = [
        {
            "classes": "viper", "target": "mid", "seed": seed, "as_trained": pairs, "target_statistics": moved,
            "epe": {domain: {"epe": 0.4, "epe_of_no_flow": 1.0} for domain in ("source", "target")},
        }
        for seed in range(2)
    ]  # fmt: skip
    text = report(results() | {"figure_2": entries})
    assert "holds, as trained they lose 30.0 and 1.0 points" in text
    assert "7.0 of the 30.0 remain, so 77 % of the fall is statistics" in text


def test_the_gap_is_that_between_source_only_and_target_only() -> None:
    of = results(source_only=([20.0, 30.0], [0.0, 0.0]), target_only=([40.0, 30.0], [0.0, 0.0]))
    place = Place(of, "viper", "mid")
    assert gap_closed({0: 35.0, 1: 30.0, 2: 30.0}, ACCEL, place) == [75.0]  # seed 1 has no gap, seed 2 no controls


def test_an_entry_replaces_the_one_of_its_place_and_no_other() -> None:
    entries: list[Results] = []
    for seed, system, value in ((0, "a", 1), (1, "a", 2), (0, "b", 3), (0, "a", 4)):
        put(entries, {"classes": "viper", "target": "mid", "seed": seed, "system": system, "value": value}, "system")
    assert sorted(entry["value"] for entry in entries) == [2, 3, 4]
