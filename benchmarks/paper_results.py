"""What a folder of results holds in results.json, and going on with it.

stages   every run: recipe, steps, seconds
cells    every system, seed and setting: mIoU and IoU of every class, as trained and with BatchNorm statistics of the
         target; or the sentence that says why there are none
figure_2, figure_5   the points of the figures; failed_figures are sentences
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.paper_scales import Scale, ScaleName, Setting
from training.run_directory import write_aside

FORMAT, FORMAT_VERSION = "flowseg-paper", 1
FILE = "results.json"
Results = dict[str, Any]  # Any: of what JSON knows
PLACE = ("classes", "target", "seed")  # what tells cells of a system, stages of a recipe and points of a figure apart


def open_results(folder: Path, name: ScaleName, scale: Scale, is_real: bool) -> Results:
    """The results in a folder, or none yet.

    Raises:
        ValueError: if the folder holds results that these cannot be added to.
    """
    new: Results = {
        "format": FORMAT, "format_version": FORMAT_VERSION, "scale": {"name": name, **asdict(scale)},
        "data": "real" if is_real else "world", "tables": [], "figures": [], "stages": [], "cells": [],
        "figure_2": [], "figure_5": [], "failed_figures": [],
    }  # fmt: skip
    new = json.loads(json.dumps(new))  # tuples become lists, as in what is read
    path = folder / FILE
    if not path.exists():
        return new
    try:
        old: Results = json.loads(path.read_text(encoding="utf-8"))
        version = old["format"], old["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}): remove it or choose another --out"
        ) from error
    if version != (FORMAT, FORMAT_VERSION):
        raise ValueError(
            f"{path} is of {version[0]} {version[1]}, this writes {FORMAT} {FORMAT_VERSION}: choose another --out"
        )
    for key in ("scale", "data"):
        if old[key] != new[key]:
            was, now = (of[key]["name"] if key == "scale" else of[key] for of in (old, new))
            how = f"{was!r}, this call says {now!r}" if was != now else f"{was!r}, which has other values by now"
            raise ValueError(f"{folder} holds results of {key} {how}: choose another --out")
    return old


def write_results(folder: Path, results: Results) -> None:
    """Puts them into the folder."""
    text = json.dumps(results, indent=2) + "\n"
    write_aside(folder / FILE, lambda path: path.write_text(text, encoding="utf-8"))


def place(setting: Setting, seed: int) -> Results:
    """What tells results of a setting and a seed apart from others."""
    return {"classes": setting.classes, "target": setting.target, "seed": seed}


def find(entries: list[Results], **where: Any) -> Results | None:  # Any: of what JSON knows
    """The entry whose fields have these values."""
    return next(iter(find_all(entries, **where)), None)


def find_all(entries: list[Results], **where: Any) -> list[Results]:  # Any: of what JSON knows
    """All such entries, by seed."""
    found = [entry for entry in entries if all(entry.get(key) == value for key, value in where.items())]
    return sorted(found, key=lambda entry: entry["seed"])


def put(entries: list[Results], entry: Results, *keys: str) -> None:
    """Adds an entry, in place of the one with the same place and the same values of these keys."""
    key = {name: entry[name] for name in (*PLACE, *keys)}
    entries[:] = [other for other in entries if any(other.get(name) != value for name, value in key.items())]
    entries.append(entry)
