"""What a run is and how it went, in words."""

import math
import statistics
from typing import Any

from dcgan_jax.page.record import Record
from dcgan_jax.page.settings import last_name, shown

CLASSES = 20  # names that are listed
LISTED = 8  # steps that are listed


def of_run(record: Record) -> dict[str, str]:
    """The facts that a reader looks for first, by their names."""
    config = record.config
    epochs = [line["epoch"] for line in record.lines if math.isfinite(line.get("epoch", math.nan))]
    unfinished = "" if record.step >= config["num_steps"] else " (not finished)"
    facts = {
        "trained on": _images(record),
        "steps": f"{record.step:,} of {config['num_steps']:,}{unfinished}",
        "epochs": f"{epochs[-1]:.4g}" if epochs else "",
        "best step": _best(record),
        "alarms": _alarms(record),
        "rollbacks": "; ".join(_rollback(rollback) for rollback in record.rollbacks) or "none",
        "damaged checkpoints": ", ".join(record.damaged) or "none",
        "checkpoints": ", ".join(f"{step:,}" for step in record.checkpoints) or "none",
        "images a second": _speed(record),
        "recipe": f"{config['recipe']}, seed {config['seed']}, batches of {config['batch_size']}",
    }
    return {name: text or "unknown" for name, text in facts.items()}


def of_images(card: dict[str, Any]) -> dict[str, str]:
    """The card of the images: where they are from, how they were prepared, and hashes of their content."""
    rows: dict[str, str] = {}
    for name, value in card.items():
        if name in ("path", "fingerprint"):  # of one machine
            rows |= {"file or folder": last_name(str(value))} if name == "path" and value else {}
        elif isinstance(value, dict):
            rows |= {f"{name} of {part}": str(entry) for part, entry in value.items()}
        elif isinstance(value, list) and name != "image_size":
            more = f" and {len(value) - CLASSES:,} more" if len(value) > CLASSES else ""
            rows[name] = ", ".join(map(str, value[:CLASSES])) + more or "none"
        else:
            rows[name] = " x ".join(map(str, value)) if isinstance(value, list) else shown(value)
    return {name.replace("_", " "): text for name, text in rows.items() if text}


def _images(record: Record) -> str:
    card, config = record.card, record.config
    source = config["data.name"] or last_name(config["data.path"]) or config["data.source"]
    count = f"{card['count']:,} images" if type(card.get("count")) is int else "images"
    height, width = (*config["image_size"], *config["image_size"])[:2]
    channels = {1: "grey", 3: "in colour", 4: "in colour with transparency"}.get(
        config["channels"], f"of {config['channels']} channels"
    )
    classes = f", of {config['num_classes']} classes" if config["num_classes"] else ""
    return f"{source}: {count} of {height} x {width} pixels, {channels}{classes}"


def _best(record: Record) -> str:
    if record.best is None:
        return "nothing measured the run"
    kept = "" if record.best.kept else "; its checkpoint is not there"
    return f"{record.best.step:,} ({record.best.metric} {record.best.value:.4g}{kept})"


def _alarms(record: Record) -> str:
    rows = [f"step {a:,}" if a == b else f"steps {a:,} to {b:,}" for a, b in record.alarms]
    more = f" and {len(rows) - LISTED} more" if len(rows) > LISTED else ""
    return "; ".join(rows[:LISTED]) + more or "none"


def _rollback(rollback: Any) -> str:
    return f"at step {rollback.step:,}, back to step {rollback.start:,} ({rollback.folder})"


def _speed(record: Record) -> str:
    rates = [line["images_per_sec"] for line in record.lines if math.isfinite(line.get("images_per_sec", math.nan))]
    return f"{statistics.median(rates):,.0f} (median)" if rates else ""
