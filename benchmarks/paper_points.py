"""What the figures of the paper are drawn of.

Figure 2: which of the two networks suffers from the domain gap? A segmentation network trained on the source falls on
the target; a flow network hardly does. Each is trained once on the source and once on the target, from the same initial
weights for as many steps, and put into Accel beside the other; all four pairs are judged on the target. Departures: the
flow network is trained on true flow, which the world has, instead of through the segmentation; Accel's merge layer is
the average of both branches instead of trained. So that BatchNorm is told apart, all four are also judged with its
statistics re-estimated on target frames.

Figure 5: mIoU against the error of the flow that predictions imply, over the training of stage one; here also of the
control, which trains without that error.
"""

import logging
from typing import cast

from benchmarks.paper_results import Results, find, place, put
from benchmarks.paper_rows import measured, with_statistics_of_target
from benchmarks.paper_scales import Setting
from benchmarks.paper_stages import StageFailedError, Workshop
from training.command_line import choose_device
from training.data import World, WorldFlow
from training.methods.stage import StagedMethod
from training.models.accel import Accel
from training.models.optical_flow import FlowNet
from training.models.per_frame import PerFrame
from training.run_directory import Run
from training.validation import flow_error

logger = logging.getLogger(__name__)
SEGNETS = {"source": "source-only-one", "target": "segnet-on-target"}  # domain -> system
FLOW_NETS = {"source": "flow", "target": "flow-on-target"}
CURVES = ("sfc-one", "control-one")
FIGURE_SYSTEMS: dict[int, tuple[str, ...]] = {
    2: (*SEGNETS.values(), *FLOW_NETS.values(), "source-only"),
    5: CURVES,
}


def add_figure_2(workshop: Workshop, setting: Setting, seed: int) -> None:
    """Puts the four pairs into the results.

    Raises:
        StageFailedError: if a network cannot be trained.
    """
    if find(workshop.results["figure_2"], **place(setting, seed)) is not None:
        return
    device = choose_device(workshop.machine.device)
    segnets, flow_nets = (
        {domain: workshop.run_of(setting, seed, system) for domain, system in systems.items()}
        for systems in (SEGNETS, FLOW_NETS)
    )
    recipe = workshop.recipe_of(setting, seed, "source-only")
    validation = workshop.target_validation(setting, seed)
    assert isinstance(validation, World)
    with_flow = WorldFlow(
        look=validation.look, split=validation.split, size=validation.size, num_clips=validation.num_clips,
        seed=validation.seed,
    )  # fmt: skip
    entry: Results = {
        **place(setting, seed),
        "as_trained": {},
        "target_statistics": {},
        "epe": {},
    }
    for domain, run in flow_nets.items():
        flow_net = cast("FlowNet", run.networks()["flow_net"]).to(device)
        entry["epe"][domain] = flow_error(flow_net, with_flow, device)
        for of_segnet, segnet in segnets.items():
            assert isinstance(recipe.method, StagedMethod)
            accel = cast("Accel", recipe.method.stage.build(validation.num_classes)).eval()
            _put_together(accel, segnet, run)
            moved = with_statistics_of_target(accel.to(device), recipe.target, device)
            pair = f"segnet {of_segnet}, flow {domain}"
            entry["as_trained"][pair] = measured(accel, validation, device)["miou"]
            entry["target_statistics"][pair] = measured(moved, validation, device)["miou"]
    put(workshop.results["figure_2"], entry)


def _put_together(accel: Accel, segnet: Run, flow: Run) -> None:
    trained = cast("PerFrame", segnet.networks()["segmenter"]).segnet.state_dict()
    for branch in (accel.net_ref, accel.net_update):
        branch.load_state_dict({key: trained[key] for key in branch.state_dict()})  # without the auxiliary classifier
    accel.flownet.load_state_dict(flow.networks()["flow_net"].state_dict())


def add_figure_5(workshop: Workshop, setting: Setting, seed: int) -> None:
    """Puts what validation measured along both trainings into the results.

    Raises:
        StageFailedError: if one cannot be trained.
    """
    curves = {system: _curve(workshop.run_of(setting, seed, system)) for system in CURVES}
    put(workshop.results["figure_5"], {**place(setting, seed), "curves": curves})


def _curve(run: Run) -> list[dict[str, float]]:
    validated = [figures for figures in run.figures() if "validation/epe" in figures]
    return [
        {"step": figures["step"], "miou": figures["validation/miou"], "epe": figures["validation/epe"]}
        for figures in validated
    ]


def add_figure(workshop: Workshop, number: int, setting: Setting, seed: int) -> str:
    """Puts the points of a figure into the results; what went wrong, if anything did."""
    try:
        (add_figure_2 if number == 2 else add_figure_5)(workshop, setting, seed)
    except StageFailedError as error:
        return str(error)
    return ""
