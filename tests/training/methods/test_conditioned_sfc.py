from collections.abc import Callable
from typing import Any

import pytest

from training.data.clip import Clip, LabelledClip
from training.methods.method import Method, Networks
from training.models.raft import RaftConfig

Small = Callable[..., Method[Any]]  # Any: methods of either source
Train = Callable[[Method[Any], Networks, int], list[dict[str, float]]]


@pytest.mark.parametrize("name", ["conditioned_sfm_pretraining", "conditioned_sfc"])
def test_untold_the_module_is_the_papers(name: str, small: Small, source: LabelledClip, target: Clip) -> None:
    method, papers = small(name), small(name.removeprefix("conditioned_"))
    networks = method.networks(4)
    method.optimizers(networks)
    losses = [
        next(iter(each.updates({**networks, "sfm": sfm}, source, target))).losses["flow"]
        for each, sfm in ((method, networks["sfm"]), (papers, networks["sfm"].get_submodule("flow_net")))
    ]
    assert losses[0].item() == losses[1].item()


def test_pretraining_teaches_the_module_to_use_what_it_is_told(small: Small, train: Train) -> None:
    method = small("conditioned_sfm_pretraining")
    networks = method.networks(4)
    train(method, networks, 2)
    for film in networks["sfm"].get_submodule("films").children():
        assert bool(film.get_parameter("weight").any())


def test_a_flow_network_of_another_kind_is_refused(small: Small) -> None:
    method = small("conditioned_sfc", teacher_flow=RaftConfig(iterations=1, width=0.25))
    with pytest.raises(ValueError, match="the flow network is Raft, a class changes maps of FlowNetS: choose that"):
        method.networks(4)
