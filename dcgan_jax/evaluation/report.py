"""What was measured, written down: evaluation.jsonl, curves of it, and pictures."""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from dcgan_jax.data.images import grid

NAME = "evaluation.jsonl"


def append(file: Path, lines: list[dict[str, Any]]) -> None:
    """Adds lines to a file, whole ones: a line that a kill cut short is ended first."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    with file.open("a+b") as writer:
        if writer.seek(0, os.SEEK_END):
            writer.seek(-1, os.SEEK_END)
            text = text if writer.read(1) == b"\n" else f"\n{text}"
        writer.write(text.encode())
        writer.flush()
        os.fsync(writer.fileno())


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of an evaluation.jsonl; none where there is no file. Lines that are not whole are left out."""
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
    """Draws each metric against the step, one PNG a metric; by the last value where a step has several."""
    from matplotlib.figure import Figure  # imported late: training without measures does without

    found: dict[str, dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        found[line["metric"]][line["features"]][line["step"]] = line
    files = []
    for metric, by_features in found.items():
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


def neighbours(samples: np.ndarray, images: np.ndarray, file: Path) -> None:
    """Writes a picture of samples, each with its nearest training image at its right; uint8 [N, H, W, C] both."""
    pairs = np.stack([samples, images], 1).reshape(-1, *samples.shape[1:])
    file.parent.mkdir(parents=True, exist_ok=True)
    grid(pairs, columns=8).save(file)
