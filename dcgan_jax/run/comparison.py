"""Runs side by side: what differs between them, how far they are, and the best and last of what they measured."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcgan_jax.config import best_by, default_config
from dcgan_jax.evaluation import report
from dcgan_jax.fields import FIELDS, flatten
from dcgan_jax.run.best import best_step, sign
from dcgan_jax.runtime.files import json_lines

Row = dict[str, Any]

FORMATS = {"markdown": "md", "csv": "csv", "json": "json"}  # and their files' endings


def last_checkpoint(workdir: Path) -> int:
    """The newest step of which a run has a checkpoint, 0 if there is none; without opening it."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)


def recorded(workdir: Path) -> dict[str, Any] | None:
    """The configuration in a run's config.json, nested; None if there is none."""
    try:
        config = json.loads((workdir / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) and "num_steps" in config else None


def rows(workdirs: Sequence[Path]) -> list[Row]:
    """A row for each run, the best first by its configuration's `best_by`, those without a value last.

    Columns: run; the fields in which the runs differ; status; what `best_by` names at its best, at which step, and at
    the end; d_loss and g_loss at the end; seconds of training, without compiling and measuring.
    """
    configs = {workdir: recorded(workdir) for workdir in workdirs}
    known = [config for config in configs.values() if config]
    metric, best_is = best_by(default_config().to_dict() | known[0]) if known else ("", "lowest")
    varied = _varied([flatten(config) for config in known])
    made = [_row(workdir, config, varied, metric, best_is) for workdir, config in configs.items()]
    best = f"best {metric}"
    return sorted(made, key=lambda row: (row.get(best) is None, sign(best_is) * (row.get(best) or 0)))


def _varied(configs: list[dict[str, Any]]) -> list[str]:
    return [name for name in FIELDS if len({json.dumps(config.get(name)) for config in configs}) > 1]


def _row(workdir: Path, config: dict[str, Any] | None, varied: list[str], metric: str, best_is: str) -> Row:
    row: Row = {"run": workdir.name}
    if config is None:
        return row | {"status": "not started"}
    values, lines = flatten(config), [line for line in json_lines(workdir / "metrics.jsonl") if "step" in line]
    row |= {name: values.get(name, FIELDS[name].default) for name in varied}
    step = last_checkpoint(workdir)
    row["status"] = "done" if step >= config["num_steps"] else f"step {step} of {config['num_steps']}"
    measured = {line["step"]: line[metric] for line in lines if metric in line}
    evaluated = report.read(workdir / report.NAME) if metric else []
    measured |= {line["step"]: line["value"] for line in evaluated if line["metric"] == metric}
    if measured:
        best = best_step(measured, best_is)
        row |= {f"best {metric}": measured[best], "at step": best, f"last {metric}": measured[max(measured)]}
    if lines:
        row |= {name: lines[-1][name] for name in ("d_loss", "g_loss") if name in lines[-1] and name != metric}
    return row | {"seconds": round(_seconds(lines, config))}


def _seconds(lines: list[dict[str, Any]], config: dict[str, Any]) -> float:
    """The time of training, from its rate at each line."""
    images, seconds, before = config["batch_size"] * config.get("discriminator_steps", 1), 0.0, 0
    for line in lines:
        if line.get("images_per_sec"):
            seconds += (line["step"] - before) * images / line["images_per_sec"]
        before = line["step"]
    return seconds


def table(made: list[Row], kind: str) -> str:
    """The rows as text. kind: one of `FORMATS`; JSON is a list of objects, with numbers in full."""
    columns = list(dict.fromkeys(name for row in sorted(made, key=len, reverse=True) for name in row))
    if kind == "json":
        return json.dumps(made, indent=2) + "\n"
    if kind == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _joined(value) for name, value in row.items()} for row in made)
        return text.getvalue()
    cells = [columns, ["---"] * len(columns)]
    cells += [[_shown(row.get(name, "")) for name in columns] for row in made]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else value


def _shown(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(_joined(value))
    return text.replace("|", "\\|")
