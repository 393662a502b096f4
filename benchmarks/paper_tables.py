"""What rows the tables of the paper have, what the paper says they reach, and what it says is better than what.

Gao et al., Semantic-Flow Consistency (SFC), AAAI 2023. A row names a system, whose recipe is the last of its stages
(`paper_recipes`). Rows that the paper has not are controls: without them a gain says little.
"""

from typing import Literal, NamedTuple

Classes = Literal["viper", "synthia"]  # whose label set, of `training.label_spaces`
NUM_CLASSES: dict[Classes, int] = {"viper": 15, "synthia": 11}  # that the means are of


class Controls(NamedTuple):
    """The systems that tell what of a gain is whose; what reasons are computed from."""

    source_only: str
    control: str  # the method's training without its flow loss
    augmented: str  # source-only in random colours
    target_only: str  # labels of the target, as many steps as the method


def _controls(prefix: str = "", suffix: str = "") -> Controls:
    systems = (f"{prefix}{name}{suffix}" for name in ("source-only", "control", "augmented", "target-only"))
    return Controls(*systems)


ACCEL, STAGE_ONE, DFF, DA_VSS, RAFT = (
    _controls(), _controls(suffix="-one"), _controls("dff-"), _controls("da-vss-"), _controls("raft-"),
)  # fmt: skip
STAGE_TWO_ALONE = Controls("source-only", "control-two", "augmented", "target-only")
COLOURED = Controls("source-only", "r1", "augmented", "long-target-only")  # all in random colours


class Row(NamedTuple):
    """A system in a table."""

    title: str
    system: str  # see `paper_recipes`
    paper: float | None = None  # mIoU in percent, where the paper prints one that we know
    is_control: bool = False  # of ours: the paper has no such row
    with_statistics: bool = False  # judged with BatchNorm statistics of the target instead of as trained
    of: Controls = ACCEL  # what it is measured between
    is_of_the_world: bool = False  # there is no recipe of it for the data sets of the paper


class Claim(NamedTuple):
    """Something the paper says, or that its argument needs."""

    better: str  # a system
    worse: str  # another
    controls: Controls
    is_implied: bool = False  # the paper prints no such pair, but its explanation of the gain needs it
    worse_with_statistics: bool = False  # the worse one is judged with the target's BatchNorm statistics


class Table(NamedTuple):
    """A table of the paper."""

    title: str
    classes: Classes
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]


def _among(of: Controls, *rows: Row) -> tuple[Row, ...]:
    return tuple(row._replace(of=of) for row in rows)


def _control_rows(of: Controls, what: str = "") -> tuple[Row, ...]:
    return _among(
        of,
        Row(f"{what}source-only, BatchNorm statistics of the target", of.source_only, None, True, with_statistics=True),
        Row(f"{what}SFC's training without the flow loss", of.control, is_control=True),
        Row(f"{what}source-only, source in random colours", of.augmented, is_control=True),
        Row(f"{what}target-only, as many steps", of.target_only, is_control=True),
    )


def _coloured_rows() -> tuple[Row, ...]:
    rows = {
        "r1": "source in random colours, target frames forwarded without a loss",
        "mean-teacher": "and a mean teacher",
        "mixed-teacher": "and objects of the source pasted into target frames",
        "mixed-teacher-flow": "and the teacher is told what flow says of a class",
        "long-target-only": "target-only in random colours, as many steps as these four",
    }
    return tuple(Row(title, system, None, True, of=COLOURED, is_of_the_world=True) for system, title in rows.items())


def _claims(of: Controls, method: str) -> tuple[Claim, ...]:
    """A method gains, by its flow loss, and more than without any training or without any target frame."""
    return (
        Claim(method, of.source_only, of),
        Claim(method, of.control, of, is_implied=True),
        Claim(method, of.source_only, of, is_implied=True, worse_with_statistics=True),
        Claim(method, of.augmented, of, is_implied=True),
    )


def _all_methods(classes: Classes, source_only: float, sfc: float, sfc_tpl: float) -> Table:
    return Table(
        "VIPER to Cityscapes-Seq" if classes == "viper" else "SYNTHIA-Seq to Cityscapes-Seq",
        classes,
        (
            Row("source-only", "source-only", source_only),
            Row("AdvEnt", "advent"),
            Row("PixMatch", "pixmatch"),
            Row("DA-VSN", "da-vsn"),
            Row("TPS", "tps"),
            Row("SFC", "sfc", sfc),
            Row("SFC with TPL", "sfc-tpl", sfc_tpl),
            *_control_rows(ACCEL),
            *_coloured_rows(),
        ),
        (*_claims(ACCEL, "sfc"), Claim("sfc-tpl", "sfc", ACCEL), Claim("sfc-tpl", "source-only", ACCEL)),
    )


TABLES: dict[int, Table] = {
    1: _all_methods("viper", 37.4, 51.1, 51.7),
    2: _all_methods("synthia", 38.8, 52.5, 55.3),
    3: Table(
        "The stages apart: stage one, and stage two on the SegNet of source-only",
        "viper",
        (
            *_among(
                STAGE_ONE,
                Row("stage one: source-only", "source-only-one", 37.62),
                Row("stage one: DA-VSN", "da-vsn-one", 45.12),
                Row("stage one: TPS", "tps-one", 46.71),
                Row("stage one: SFC", "sfc-one", 48.87),
            ),
            *_control_rows(STAGE_ONE, "stage one: "),
            Row("stage two alone: source-only", "source-only", 37.39),
            Row("stage two alone: DA-VSN", "da-vsn-two", 44.93),
            Row("stage two alone: TPS", "tps-two", 46.58),
            Row("stage two alone: SFC", "sfc-two", 48.02),
            *_control_rows(STAGE_TWO_ALONE, "stage two alone: ")[:2],
            *_control_rows(STAGE_TWO_ALONE, "both stages: ")[2:],
        ),
        (
            *_claims(STAGE_ONE, "sfc-one"),
            Claim("da-vsn-one", "source-only-one", STAGE_ONE),
            Claim("tps-one", "da-vsn-one", STAGE_ONE),
            Claim("sfc-one", "tps-one", STAGE_ONE),
            *_claims(STAGE_TWO_ALONE, "sfc-two"),
            Claim("da-vsn-two", "source-only", STAGE_TWO_ALONE),
            Claim("tps-two", "da-vsn-two", STAGE_TWO_ALONE),
            Claim("sfc-two", "tps-two", STAGE_TWO_ALONE),
        ),
    ),
    4: Table(
        "SFC in other video segmenters",
        "viper",
        (
            *_among(DFF, Row("DFF: source-only", "dff-source-only", 37.04), Row("DFF: SFC", "dff-sfc", 48.51)),
            *_control_rows(DFF, "DFF: "),
            *_among(
                DA_VSS, Row("DA-VSS: source-only", "da-vss-source-only", 38.70), Row("DA-VSS: SFC", "da-vss-sfc", 48.97)
            ),
            *_control_rows(DA_VSS, "DA-VSS: "),
        ),
        (*_claims(DFF, "dff-sfc"), *_claims(DA_VSS, "da-vss-sfc")),
    ),
    5: Table(
        "SFC with other flow networks",
        "viper",
        (
            Row("FlowNet: source-only", "source-only", 37.39),
            Row("FlowNet: SFC", "sfc", 51.05),
            *_control_rows(ACCEL, "FlowNet: "),
            *_among(RAFT, Row("RAFT: source-only", "raft-source-only", 38.64), Row("RAFT: SFC", "raft-sfc", 51.57)),
            *_control_rows(RAFT, "RAFT: "),
        ),
        (*_claims(ACCEL, "sfc"), *_claims(RAFT, "raft-sfc"), Claim("raft-sfc", "sfc", RAFT)),
    ),
}

PICTURED = {  # in the grid of frames: system -> title
    "source-only": "source-only", "control": "without flow loss", "sfc": "SFC", "sfc-tpl": "SFC with TPL",
    "pixmatch": "PixMatch", "augmented": "random colours", "mixed-teacher": "recommended", "target-only": "target-only",
}  # fmt: skip
