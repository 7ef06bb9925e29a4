"""The curves of one run, or of several over one another, as figures of Plotly: plain JSON."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dcgan_jax.page import thinning
from dcgan_jax.page.record import Line, Record

POINTS, FEWEST_POINTS = 2000, 150  # of each curve: of one run, and at least of each of several
SYMBOLS_SHOWN = 12  # on a curve
OTHERS = 12  # curves of metrics that GROUPS does not name
MARKS = 6  # alarms and rollbacks of a run that are marked, each
# Of curves and marks: seen on light and on dark, and told apart by more than the colour.
COLOURS = ("#3b82c4", "#d9722e", "#2a9d74", "#b85fb0", "#d64550", "#a8821a", "#5b6bd6", "#7d8590")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down")
MARK_DASHES = {"best": "solid", "alarm": "dot", "rollback": "dash"}
GREY = "#7d8590"

# The curves of one run that share a chart, and what to know about them.
GROUPS = (
    (
        "Losses",
        ("d_loss", "g_loss", "d_penalty"),
        "They do not fall to zero: with the usual loss d_loss is 1.39 if the discriminator cannot tell real from "
        "generated images, and single spikes are common. Judge by quality and the samples.",
    ),
    ("Quality", ("quality",), "The distance of samples from real images, at each checkpoint: lower is better."),
    (
        "What the discriminator says",
        ("d_real", "d_fake", "d_accuracy_real", "d_accuracy_fake", "d_saturated"),
        "The mean probability of 'real' that it gives to real and to generated images, the shares that it gets right, "
        "and the share of its logits that are saturated.",
    ),
    (
        "Differences between samples",
        ("spread",),
        "How much samples differ, as a share of how much real images do: near 0 they are all alike.",
    ),
    ("Gradients", ("d_grad_norm", "g_grad_norm"), "The norms of both networks' gradients."),
    ("Speed", ("images_per_sec",), "Images a second, of training alone."),
    ("Waiting for images", ("data_wait",), "The share of that time in which training waited for images."),
    ("Not training", ("overhead",), "The share of all time for compiling, sampling, measuring and saving."),
)
NO_CURVES = ("step", "epoch", "collapsed")


class Curve(NamedTuple):
    """Steps and values of a metric, some of which may not be finite. errors: standard errors, if they are known."""

    name: str
    steps: list[int]
    values: list[float]
    errors: list[float] | None = None


class Summary(NamedTuple):
    """A curve in words: its lowest, highest and last value, each with its step."""

    name: str
    lowest: str
    highest: str
    last: str


class Chart(NamedTuple):
    """A figure, and what it shows in words. thinned: whether curves have more points than are drawn."""

    title: str
    text: str
    figure: dict[str, Any]
    summaries: list[Summary]
    thinned: bool


def make(records: Sequence[Record]) -> list[Chart]:
    """All charts: of one run, metrics that belong together share one; of several runs, each metric has its own."""
    groups = [(title, names, text) for title, names, text in GROUPS]
    known = {*NO_CURVES, *(name for _, names, _ in GROUPS for name in names)}
    own = [_evaluation(record) for record in records]
    evaluated = sorted({name for curves in own for name in curves})
    measured = {name.partition(" (")[0] for name in evaluated}  # metrics.jsonl has these too
    others = sorted({name for record in records for line in record.lines for name in line} - known - measured)
    groups[2:2] = [(name, (name,), "From evaluation.jsonl; bars are standard errors.") for name in evaluated]
    groups += [(name, (name,), "") for name in others[:OTHERS]]
    if len(others) > OTHERS:
        records[0].notes.append(f"Of {len(others)} further metrics, {OTHERS} are drawn.")
    if len(records) > 1:
        groups = [(name if len(names) > 1 else title, (name,), text) for title, names, text in groups for name in names]
    charts = [_chart(title, names, text, records, own) for title, names, text in groups]
    return [chart for chart in charts if chart.figure["data"]]


def _chart(
    title: str, names: tuple[str, ...], text: str, records: Sequence[Record], evaluated: list[dict[str, Curve]]
) -> Chart:
    limit = max(FEWEST_POINTS, POINTS // len(records))
    traces, summaries, thinned = [], [], False
    for number, record in enumerate(records):
        for place, name in enumerate(names):
            curve = evaluated[number].get(name) or _recorded(name, record.lines)
            if not curve.steps:
                continue
            label = name if len(records) == 1 else f"{number + 1}: {record.name}"
            look = place if len(records) == 1 else number
            traces.append(_trace(curve, label, look, limit))
            summaries.append(_summary(curve, label))
            thinned |= len(curve.steps) > limit
            for rollback in record.rollbacks:
                given_up = _recorded(name, rollback.lines)
                if given_up.steps:
                    traces.append(_given_up(given_up, f"{label}, given up ({rollback.folder})", look, limit // 4))
    return Chart(title, text, {"data": traces, "layout": _layout(records, title)}, summaries, thinned)


def _recorded(name: str, lines: list[Line]) -> Curve:
    chosen = [line for line in lines if name in line]
    return Curve(name, [int(line["step"]) for line in chosen], [line[name] for line in chosen])


def _evaluation(record: Record) -> dict[str, Curve]:
    """The curves of evaluation.jsonl by metric and features; of several values of a step, the last."""
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for line in record.measures:
        by_name.setdefault(f"{line['metric']} ({line['features']})", {})[line["step"]] = line
    curves = {}
    for name, by_step in by_name.items():
        steps = sorted(by_step)
        errors: list[Any] = [by_step[step].get("standard_error") for step in steps]
        known = [float(error) if type(error) in (int, float) and math.isfinite(error) else 0.0 for error in errors]
        values = [float(by_step[step]["value"]) for step in steps]
        curves[name] = Curve(name, steps, values, known if any(known) else None)
    return curves


def _trace(curve: Curve, label: str, look: int, limit: int) -> dict[str, Any]:
    """A curve with the colour, dash and symbol number `look`."""
    colour = COLOURS[look % len(COLOURS)]
    chosen = thinning.points(np.array(curve.values, float), limit)
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _plain(label),
        "x": [curve.steps[i] for i in chosen],
        "y": [_rounded(curve.values[i]) for i in chosen],
        "line": {"color": colour, "dash": DASHES[look % len(DASHES)], "width": 2},
        "marker": {"symbol": SYMBOLS[look % len(SYMBOLS)], "size": 7, "maxdisplayed": SYMBOLS_SHOWN},
        "connectgaps": False,
    }
    if curve.errors:
        trace["error_y"] = {"type": "data", "array": [_rounded(curve.errors[i]) for i in chosen], "thickness": 1}
    return trace


def _given_up(curve: Curve, label: str, look: int, limit: int) -> dict[str, Any]:
    """What a rollback set aside: thin, without symbols, and not in the legend."""
    trace = _trace(curve, label, look, limit)
    del trace["marker"]
    thin = {"line": trace["line"] | {"dash": "dot", "width": 1.5}, "opacity": 0.6}
    return trace | thin | {"mode": "lines", "showlegend": False}


def _layout(records: Sequence[Record], title: str) -> dict[str, Any]:
    several = len(records) > 1
    marks = [mark for number, record in enumerate(records) for mark in _marks(record, number if several else None)]
    return {
        "xaxis": {"title": {"text": "step", "standoff": 6}, "hoverformat": ",d", "zeroline": False},
        "yaxis": {"type": "linear", "zeroline": False, "automargin": True},
        "hovermode": "x unified",
        "showlegend": True,
        "legend": {"orientation": "h", "y": -0.32, "yanchor": "top"},
        "margin": {"l": 56, "r": 14, "t": 58, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "shapes": [_line(mark) for mark in marks],
        "annotations": [_label(mark, height) for height, mark in enumerate(marks)],
        "meta": {"title": title},
    }


class Mark(NamedTuple):
    """A step that is marked in all charts. colour: None for that of the page's text."""

    kind: str
    step: int
    text: str
    colour: str | None


def _marks(record: Record, number: int | None) -> list[Mark]:
    """The marks of a run; number: among several, whose marks have the colours of their curves."""
    best = [("best", record.best.step)] if record.best else []
    alarms = [("alarm", first) for first, _ in record.alarms]
    rollbacks = [("rollback", rollback.step) for rollback in record.rollbacks]
    chosen = [*best, *alarms[:MARKS], *rollbacks[:MARKS]]
    if number is None:
        return [Mark(kind, step, kind, None) for kind, step in chosen]
    return [Mark(kind, step, f"{kind} {number + 1}", COLOURS[number % len(COLOURS)]) for kind, step in chosen]


def _line(mark: Mark) -> dict[str, Any]:
    line = {"color": mark.colour or GREY, "width": 1.5, "dash": MARK_DASHES[mark.kind]}
    ends = {"x0": mark.step, "x1": mark.step, "yref": "paper", "y0": 0, "y1": 1}
    return {"type": "line", "line": line, "layer": "below"} | ends


def _label(mark: Mark, height: int) -> dict[str, Any]:
    """The text above a mark; those after one another at three heights, so that neighbours do not cover each other."""
    place = {"x": mark.step, "yref": "paper", "y": 1, "yanchor": "bottom", "yshift": 13 * (height % 3)}
    font = {"size": 11} | ({"color": mark.colour} if mark.colour else {})
    return place | {"text": mark.text, "showarrow": False, "font": font}


def _plain(text: str) -> str:
    """A text for Plotly, which knows some tags of HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _summary(curve: Curve, label: str) -> Summary:
    finite = [(value, step) for value, step in zip(curve.values, curve.steps, strict=True) if math.isfinite(value)]
    if not finite:
        return Summary(label, "no number", "no number", "no number")
    lowest, highest = min(finite), max(finite)
    texts = (f"{value:.4g} at step {step:,}" for value, step in (lowest, highest, finite[-1]))
    return Summary(label, *texts)


def _rounded(value: float) -> float | None:
    """To six digits; None, which JSON has, for what is not finite, which it has not."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
