"""What a run's folder holds, as far as it can be read: the material of a page."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dcgan_jax.config import best_by, default_config
from dcgan_jax.evaluation import report
from dcgan_jax.fields import FIELDS, check_value, flatten
from dcgan_jax.run import checkpoint, damage, weights
from dcgan_jax.run.best import best_step
from dcgan_jax.runtime.errors import UserError, local_path

NOT_A_RUN = "expected the folder of a run, such as runs/digits"

Line = dict[str, float]  # 'step', and values by name, some of which may be NaN or infinite


class Best(NamedTuple):
    """The best step by the metric that the run's configuration names. kept: whether its checkpoint is there."""

    step: int
    metric: str
    value: float
    kept: bool


class Rollback(NamedTuple):
    """What a rollback set aside. step: at which training collapsed. start: the last step that the run kept."""

    folder: str
    step: int
    start: int
    lines: list[Line]  # beyond `start`


class Record(NamedTuple):
    """A run. config: values by field, such as 'data.path'. card: of the images, {} if unknown, as are versions.

    notes: sentences about what could not be read.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    card: dict[str, Any]
    versions: dict[str, str]
    lines: list[Line]  # of metrics.jsonl, by step
    measures: list[dict[str, Any]]  # of evaluation.jsonl
    checkpoints: list[int]
    best: Best | None
    rollbacks: list[Rollback]
    damaged: list[str]  # checkpoints that were set aside
    notes: list[str]

    @property
    def step(self) -> int:
        """The last step that is recorded, or has a checkpoint."""
        recorded = [int(line["step"]) for line in self.lines[-1:]]
        return max([*recorded, *self.checkpoints[-1:]], default=0)

    @property
    def alarms(self) -> list[tuple[int, int]]:
        """The first and last step of each row of lines in which training counts as collapsed."""
        found: list[tuple[int, int]] = []
        ongoing = False
        for line in self.lines:
            step, collapsed = int(line["step"]), line.get("collapsed") == 1
            if collapsed:
                found.append((found.pop()[0] if ongoing else step, step))
            ongoing = collapsed
        return found


def read(workdir: str | Path) -> Record:
    """The record of the run in a folder. Raises UserError if there is none."""
    folder = local_path(workdir, "workdir")
    where = repr(str(folder))
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"workdir: {where} {what}, {NOT_A_RUN}")
    if weights.is_one(folder):
        raise UserError(f"workdir: {where} holds exported weights, {NOT_A_RUN}; pass the run that they are of")
    notes: list[str] = []
    checkpoints = checkpoint.steps(folder)
    meta = _newest_meta(folder, checkpoints, notes)
    config = _config(folder, meta, notes)
    lines = read_lines(folder / "metrics.jsonl", notes)
    measures = [line for line in _measures(folder, notes) if _is_measure(line)]
    if not lines and not checkpoints:
        notes.append("There is no metrics.jsonl with a line in it, and no checkpoint: nothing was trained yet.")
    return Record(
        folder=folder,
        name=_as_text(folder.resolve().name or str(folder)),
        config=config,
        card=_table(meta.get("data")),
        versions={str(name): str(version) for name, version in _table(meta.get("versions")).items()},
        lines=lines,
        measures=measures,
        checkpoints=checkpoints,
        best=_best(config, lines, checkpoints),
        rollbacks=sorted(_rollbacks(folder, lines), key=lambda rollback: rollback.step),
        damaged=sorted(_as_text(path.name) for path in _entries(folder / "damaged")),
        notes=notes,
    )


def read_lines(path: Path, notes: list[str]) -> list[Line]:
    """The numbers in a file like metrics.jsonl, by step; of several lines of a step, the last. [] without a file.

    Adds to `notes` how many lines cannot be read.
    """
    texts = [text for text in _text(path, notes).splitlines() if text.strip()]
    lines = [line for line in map(_numbers, texts) if line]
    if len(lines) < len(texts):
        notes.append(f"{len(texts) - len(lines)} of {len(texts)} lines of {path.name} are damaged and left out.")
    by_step = {line["step"]: line for line in lines}
    return [by_step[step] for step in sorted(by_step)]


def _numbers(text: str) -> Line | None:
    try:
        line = json.loads(text)
        step = line["step"]
        if type(step) is not int or not 0 <= step < 2**53:
            return None
        return {name: float(value) for name, value in line.items() if type(value) in (int, float)}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _measures(folder: Path, notes: list[str]) -> list[dict[str, Any]]:
    try:
        return report.read(folder / report.NAME)
    except (OSError, RecursionError):
        notes.append(f"{report.NAME} cannot be read.")
        return []


def _is_measure(line: dict[str, Any]) -> bool:
    numbers = type(line["step"]) is int and type(line["value"]) in (int, float) and math.isfinite(line["value"])
    return numbers and isinstance(line["metric"], str) and isinstance(line["features"], str)


def _newest_meta(folder: Path, checkpoints: list[int], notes: list[str]) -> dict[str, Any]:
    """The meta of the newest checkpoint whose meta can be read, {} if there is none."""
    for step in reversed(checkpoints):
        try:
            return damage.read_json(folder / "checkpoints" / str(step), damage.META)
        except (UserError, OSError):
            notes.append(f"The checkpoint of step {step} cannot be read.")
    notes.append("No checkpoint can be read, so nothing is known of the images and of versions.")
    return {}


def _config(folder: Path, meta: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """All fields, from config.json, or if that is no use from a checkpoint. Raises UserError without both."""
    path = folder / "config.json"
    recorded = _as_config(_text(path, notes))
    if recorded is None and path.exists():
        notes.append("config.json is damaged, or not of a run.")
    recorded = recorded or _as_config(json.dumps(meta.get("config")))
    if recorded is None:
        what = "no run's configuration (config.json)" if path.exists() else "no config.json"
        raise UserError(f"workdir: {str(folder)!r} holds {what}, {NOT_A_RUN}")
    values = flatten(default_config().to_dict()) | flatten(recorded)
    for name, field in FIELDS.items():
        try:
            check_value(name, values)
        except (UserError, TypeError) as error:
            notes.append(f"In config.json, {error}; its default stands here.")
            values[name] = field.default
    return {name: values[name] for name in FIELDS}


def _as_config(text: str) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    ours = isinstance(content, dict) and {"seed", "batch_size"} <= content.keys()
    return content if ours and isinstance(content.get("data"), dict) else None


def _best(config: dict[str, Any], lines: list[Line], checkpoints: list[int]) -> Best | None:
    metric, best_is = best_by(config)
    measured = {int(line["step"]): line[metric] for line in lines if math.isfinite(line.get(metric, math.nan))}
    if not measured:
        return None
    step = best_step(measured, best_is)
    return Best(step, metric, measured[step], step in checkpoints)


def _rollbacks(folder: Path, kept: list[Line]) -> Iterator[Rollback]:
    """What lies in `collapsed/STEP`, each with a copy of metrics.jsonl from before the rollback."""
    own = {line["step"]: line for line in kept}
    for place in _entries(folder / "collapsed"):
        lines = read_lines(place / "metrics.jsonl", [])
        number = place.name.partition("-")[0]  # another one of the same step is called STEP-1
        if not lines or not number.isdecimal():
            continue
        same = [line["step"] for line in lines if own.get(line["step"]) == line]
        start = int(max(same, default=0))
        yield Rollback(f"collapsed/{place.name}", int(number), start, [line for line in lines if line["step"] > start])


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(path: Path, notes: list[str]) -> str:
    """The content of a text file; '' if there is none, or it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error.strerror}.")
        return ""


def _as_text(name: str) -> str:
    """A file's name as text that can be written as UTF-8, which names on a disk need not be."""
    return name.encode("utf-8", "replace").decode("utf-8")
