"""Reads evaluation.jsonl, draws its curves, and writes pictures of samples beside training images."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from dcgan_jax.data.captions import captioned
from dcgan_jax.data.images import grid

NAME = "evaluation.jsonl"


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of an evaluation.jsonl, without incomplete ones; [] if there is no file."""
    lines = []
    for text in file.read_text(errors="replace").splitlines() if file.exists() else []:
        try:
            line = json.loads(text)
            line["metric"], line["value"], line["step"], line["features"]
            lines.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    return lines


def curves(lines: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Draws each metric against the step, in one PNG per metric; of several values of a step, the last."""
    from matplotlib.figure import Figure  # slow to import, and not needed to train without metrics

    by_metric: dict[str, dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        by_metric[line["metric"]][line["features"]][line["step"]] = line
    files = []
    for metric, by_features in by_metric.items():
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        for features, by_step in sorted(by_features.items()):
            steps = sorted(by_step)
            errors = [by_step[step].get("standard_error") or 0 for step in steps]
            axes.errorbar(steps, [by_step[step]["value"] for step in steps], errors, marker="o", ms=3, label=features)
        axes.set(xlabel="step", ylabel=metric)
        axes.grid(alpha=0.3)
        axes.legend(title="features")
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"{metric}.png")
        figure.savefig(files[-1], dpi=120)
    return files


def save_pairs(samples: np.ndarray, images: np.ndarray, file: Path) -> None:
    """Writes a picture of samples, each with a training image on its right; both uint8 [N, H, W, C]."""
    pairs = np.concatenate([samples, images], axis=2)
    file.parent.mkdir(parents=True, exist_ok=True)
    caption = "Pairs: a sample on the left, on the right the training image that is nearest to it by the features."
    captioned(grid(pairs, columns=4), caption).save(file)
