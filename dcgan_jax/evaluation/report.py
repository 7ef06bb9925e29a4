"""Reads evaluation.jsonl, draws its curves, and writes pictures of samples beside training images."""

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from dcgan_jax.data.captions import captioned
from dcgan_jax.data.images import grid
from dcgan_jax.runtime.files import json_lines

NAME = "evaluation.jsonl"
GAP = 4  # pixels around a pair of images


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of an evaluation.jsonl, without incomplete ones; [] if there is no file."""
    return [line for line in json_lines(file) if {"metric", "value", "step", "features"} <= line.keys()]


def curves(lines: list[dict[str, Any]], folder: Path, metrics: Collection[str] | None = None) -> list[Path]:
    """Draws each of these metrics, by default all, against the step: a PNG each, a curve for each features and seed.

    Of several values of a step, the last. A metric that no curve has at two steps is not drawn.
    """
    from matplotlib.figure import Figure  # slow to import, and not needed to train without metrics

    by_metric: dict[str, dict[tuple[str, int], dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        if metrics is None or line["metric"] in metrics:
            by_metric[line["metric"]][line["features"], line.get("seed", 0)][line["step"]] = line
    files = []
    for metric, by_origin in by_metric.items():
        if max(map(len, by_origin.values())) < 2:
            continue
        several_seeds = len({seed for _, seed in by_origin}) > 1
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        for (features, seed), by_step in sorted(by_origin.items()):
            label = f"{features}, seed {seed}" if several_seeds else features
            steps = sorted(by_step)
            errors = [by_step[step].get("standard_error") or 0 for step in steps]
            axes.errorbar(steps, [by_step[step]["value"] for step in steps], errors, marker="o", ms=3, label=label)
        axes.set(xlabel="step", ylabel=metric)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.legend(title="features")
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"{metric}.png")
        figure.savefig(files[-1], dpi=120)
    return files


def save_pairs(samples: np.ndarray, images: np.ndarray, origin: str, file: Path) -> None:
    """Writes a picture of samples, each with a training image on its right; both uint8 [N, H, W, C].

    origin: whose samples they are, for the caption.
    """
    pairs = np.concatenate([samples, images], axis=2)
    apart = np.pad(pairs, ((0, 0), (GAP, GAP), (GAP, GAP), (0, 0)))
    file.parent.mkdir(parents=True, exist_ok=True)
    caption = (
        "Pairs: a sample on the left, on the right the training image that is nearest to it by the features. "
        f"Samples of {origin}."
    )
    captioned(grid(apart, columns=4), caption).save(file)
