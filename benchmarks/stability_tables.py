"""Tables and curves from the lines of `benchmarks/stability.py`, written into docs/stability.md between its marks.

    python benchmarks/stability_tables.py

A table stands between `<!-- NAME -->` and `<!-- end -->`, NAME being an experiment or one of `TABLES`; the rest of the
page is written by hand. Curves are in docs/stability_NAME.png, if the page shows it.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import measure
import numpy as np
import stability
from scipy.stats import spearmanr
from stability_runs import SMALL, Run, config_of

from dcgan_jax.run.collapse import Watch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PAGE = measure.ROOT / "docs" / "stability.md"
COVERED = 0.1  # a class counts as covered with at least this share of what it has among the real images
FELL = 2.0  # a run has fallen over if its last FID is over so many times its best
BEFORE = 200  # healthy lines before the first measure, so that the alarm is armed
CONFIDENCE = 1.96  # standard deviations of a 95% interval

Line = dict[str, Any]


def points(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The points of a curve, each with the values that it has."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def survived(line: Line) -> bool:
    """Whether a run ended finite, with all classes covered if there are labels, and with at most twice its best."""
    end = line["curve"][-1]
    return bool(end.get("finite", True) and covered(line) and last(line) <= FELL * best(line))


def covered(line: Line) -> bool:
    """Whether all classes are among the last samples, if there are labels."""
    return line["curve"][-1].get("least_class", 1.0) >= COVERED


def measure_of(line: Line) -> str:
    """FID, or for images without labels quality."""
    return "fid" if any("fid" in point for point in line["curve"]) else "quality"


def best(line: Line) -> float:
    """The lowest FID or quality in a run."""
    return min(point[measure_of(line)] for point in line["curve"] if measure_of(line) in point)


def last(line: Line) -> float:
    """That after the last step, infinite if the run is no longer finite."""
    return line["curve"][-1].get(measure_of(line), np.inf)


def wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's interval of 95% for a share."""
    share, z = count / total, CONFIDENCE
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def mean(values: list[float]) -> str:
    """Mean and standard deviation."""
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def grouped(lines: list[Line], *names: str) -> Iterator[tuple[tuple, list[Line]]]:
    """Lines by the values of some fields, in the order of the first field's, then of all fields' first lines."""
    groups: dict[tuple, list[Line]] = defaultdict(list)
    for line in lines:
        groups[tuple(json.dumps(line[name]) if isinstance(line[name], dict) else line[name] for name in names)].append(
            line
        )
    order = list(dict.fromkeys(key[0] for key in groups))
    yield from sorted(groups.items(), key=lambda group: order.index(group[0][0]))


def changed(fields: str) -> str:
    """What a run changes of its method, but for the width."""
    return "".join(f", {name} {value}" for name, value in json.loads(fields).items() if name not in SMALL)


def of_experiment(lines: list[Line]) -> str:
    """One row for all seeds of a method on one set of images with the same fields."""
    header = [
        "images",
        "method",
        "steps",
        "runs",
        "survived (95%)",
        "best FID",
        "last FID",
        "worst last / best",
        "recall",
        "smallest class",
        "contrast",
    ]
    rows = []
    for (images, method, fields, steps), runs in grouped(lines, "images", "method", "fields", "steps"):
        count = sum(map(survived, runs))
        low, high = wilson(count, len(runs))
        rows.append(
            [
                images,
                method + changed(fields),
                f"{steps:,}",
                str(len(runs)),
                f"{count / len(runs):.0%} ({low:.0%} to {high:.0%})",
                mean([best(run) for run in runs]),
                mean([last(run) for run in runs]),
                f"{max(last(run) / best(run) for run in runs):.2f}",
                *(
                    [
                        mean([run["prdc"].get("recall", 0.0) for run in runs]),
                        f"{min(run['curve'][-1].get('least_class', 0.0) for run in runs):.2f}",
                    ]
                    if measure_of(runs[0]) == "fid"
                    else ["", ""]
                ),
                mean([run["curve"][-1]["contrast"] for run in runs]) if "contrast" in runs[0]["curve"][-1] else "",
            ]
        )
    return table(header, rows)


def of_architectures(lines: list[Line]) -> str:
    """The share of networks that end with all classes and an FID of at most twice the best network's."""
    rows = []
    for (images,), runs in grouped(lines, "images"):
        bar = FELL * min(last(run) for run in runs)
        for (method,), own in grouped(runs, "method"):
            penalty = own[0]["fields"].get("r1")
            good = [run for run in own if covered(run) and last(run) <= bar]
            low, high = wilson(len(good), len(own))
            fids = sorted(last(run) for run in own)
            rows.append(
                [
                    images,
                    method if penalty is None else f"{method}, r1 {penalty}",
                    str(len(own)),
                    f"{len(good) / len(own):.0%} ({low:.0%} to {high:.0%})",
                    f"{sum(map(survived, own)) / len(own):.0%}",
                    f"{fids[0]:.2f}",
                    f"{np.median(fids):.2f}",
                    f"{fids[-1]:.2f}",
                ]
            )
    return table(
        [
            "images",
            "method",
            "networks",
            "all classes, FID within 2 times the best",
            "survived",
            "best",
            "median",
            "worst",
        ],
        rows,
    )


def of_quality(lines: list[Line]) -> str:
    """Spearman's correlation of quality with the classifier's FID."""
    rows = []
    for (images,), runs in grouped(lines, "images"):
        each = [[(p["quality"], p["fid"]) for p in run["curve"] if {"quality", "fid"} <= p.keys()] for run in runs]
        each = [points for points in each if points]
        pairs = [pair for points in each for pair in points]
        if len(pairs) > 1:
            own = [spearmanr(points).statistic for points in each]
            over_all = f"{spearmanr(pairs).statistic:.3f}"
            rows.append([images, str(len(each)), str(len(pairs)), over_all, f"{np.median(own):.2f}"])
    return table(["images", "runs", "checkpoints", "over all of them", "median within a run"], rows)


def of_alarm(lines: list[Line]) -> str:
    """In how many runs the alarm rings, of those whose last FID is over twice the best, and of the others."""
    counts = {"over 2 times the best": [0, 0], "others": [0, 0]}
    for line in lines:
        qualities = [point["quality"] for point in line["curve"] if {"quality", "fid"} <= point.keys()]
        if len(qualities) == len(line["curve"]):
            of = counts["over 2 times the best" if last(line) > FELL * best(line) else "others"]
            of[0] += 1
            of[1] += rings(qualities, line["steps"])
    return table(["last FID", "runs", "it rings in"], [[name, *map(str, count)] for name, count in counts.items()])


def rings(qualities: list[float], steps: int) -> bool:
    """Whether the alarm rings in a run of these qualities at equal distances, whose samples differ from the start."""
    every = steps // len(qualities)
    config = config_of(Run("alarm", "digits", "stable", {"checkpoint_every": every}, steps, 0), {})
    watch = Watch(config)
    healthy = dict(spread=1.0, d_accuracy_real=0.7, d_accuracy_fake=0.7, d_saturated=0.0)
    for step in range(-BEFORE, 0):
        watch(step, healthy)
    return any(watch(every * i, healthy | {"quality": value}) for i, value in enumerate(qualities, 1))


OF_NETWORKS = ("architectures", "with_r1", "without_r1")
TABLES: dict[str, Callable[[list[Line]], str]] = {"quality": of_quality, "alarm": of_alarm}


def curves(lines: list[Line], path: Path) -> None:
    """FID or quality, and contrast, over steps; a column for each set of images, a colour for each method."""
    sets = list(grouped(lines, "images"))
    methods = sorted({(line["method"], json.dumps(line["fields"])) for line in lines})
    colours = {method: f"C{i}" for i, method in enumerate(dict.fromkeys(name + changed(of) for name, of in methods))}
    size = 5 * len(sets), 6
    figure, axes = plt.subplots(2, len(sets), figsize=size, squeeze=False, sharex="col")
    for column, ((images,), runs) in zip(axes.T, sets, strict=True):
        by = measure_of(runs[0])
        for axis, name in zip(column, (by, "contrast"), strict=True):
            for (method, fields), own in grouped(runs, "method", "fields"):
                title = method + changed(fields)
                for j, run in enumerate(own):
                    points = np.array([(p["step"], p[name]) for p in run["curve"] if name in p] or [(0, np.nan)])
                    axis.plot(*points.T, color=colours[title], alpha=0.7, label=title if j == 0 else None)
        column[0].set(title=images, ylabel="classifier's FID" if by == "fid" else by, yscale="log")
        column[1].set(xlabel="step", ylabel="contrast of samples / of real images", ylim=(0, 1.3))
        column[1].axhline(1, color="grey", linewidth=0.5)
        column[1].legend(fontsize=7, loc="lower right")  # where no curve of a healthy run is
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=stability.RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.results.read_text().splitlines()]
    lines = [line | {"curve": points(line["curve"])} for line in lines]
    page = options.page.read_text()

    def filled(match: re.Match) -> str:
        name = match[1]
        own = [line for line in lines if name in TABLES or name == line["experiment"]]
        if not own:
            return match[0]
        make = TABLES.get(name, of_architectures if name in OF_NETWORKS else of_experiment)
        picture = f"stability_{name}.png"
        if picture in page:
            curves(own, options.page.parent / picture)
        return f"<!-- {name} -->\n{make(own)}\n<!-- end -->"

    options.page.write_text(re.sub(r"<!-- (\w+) -->.*?<!-- end -->", filled, page, flags=re.DOTALL))


if __name__ == "__main__":
    main()
