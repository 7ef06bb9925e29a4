"""Makes the page of one run, or of several that are compared, from their folders."""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dcgan_jax.inference import load
from dcgan_jax.page import charts, document, facts, settings, timeline, walk
from dcgan_jax.page.document import Part
from dcgan_jax.page.record import Record, read
from dcgan_jax.run import damage
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_text

log = logging.getLogger("dcgan_jax")

NAME = "report.html"
MOST_RUNS = 8  # that can be told apart, and fit in one file
GRIDS = 40  # on the timelines of all runs
# Bytes of all pictures: with Plotly's 4.8 MB and the curves, the file stays below 8 MB.
PICTURES, WALKS = 1_050_000, 300_000


def records(workdirs: Sequence[str | Path]) -> list[Record]:
    """The records of runs, with names that differ. Raises UserError if one of the folders holds no run."""
    found = [read(workdir) for workdir in workdirs]
    alike = Counter(record.name for record in found)
    for number, record in enumerate(found):
        if alike[record.name] > 1:
            found[number] = record._replace(name=f"{record.folder.resolve().parent.name}/{record.name}")
    alike = Counter(record.name for record in found)
    return [
        record._replace(name=f"{record.name} ({number})") if alike[record.name] > 1 else record
        for number, record in enumerate(found, 1)
    ]


def page(runs: Sequence[Record]) -> str:
    """The text of the page, at most 8 MB. Adds to the records' notes. Raises UserError without the extra `report`."""
    document.libraries()
    parts = [_part(record, len(runs)) for record in runs]
    drawn = charts.make(runs)
    differing = settings.differing([record.config for record in runs]) if len(runs) > 1 else {}
    return document.render(parts, drawn, differing, _notes(parts, drawn))


def at_end(workdir: Path) -> str:
    """Writes the page of a run that is done to its folder; for the last line of its log: '; report: FILE', or ''.

    Training is not to fail for it: what goes wrong is a line of the log.
    """
    file = workdir / NAME
    again = f"python launch/report.py --workdir={workdir}"
    try:
        document.libraries()
    except UserError:
        log.info("no report of this run: it needs pip install plotly jinja2, then %s makes it", again)
        return ""
    try:
        if file.exists() and not document.is_ours(file):
            log.warning(
                "no report of this run: %s is another file, and stays; python launch/report.py --workdir=%s --out=FILE "
                "makes one elsewhere",
                *(file, workdir),
            )
            return ""
        write_text(file, page(records([workdir])))
    except Exception as error:
        log.warning("no report of this run (%s: %s); %s makes it", type(error).__name__, error, again)
        return ""
    return f"; report: {file}"


def _part(record: Record, runs: int) -> Part:
    return Part(
        record=record,
        timeline=timeline.read(record, grids=max(2, GRIDS // runs), limit=PICTURES // runs),
        walk=_walk(record, WALKS // runs),
        facts=facts.of_run(record),
        images=facts.of_images(record.card),
        command=settings.command(record.config),
        settings=settings.all_of(record.config),
        changed=settings.changed(record.config),
    )


def _walk(record: Record, limit: int) -> walk.Walk | None:
    """A walk of the best generator that there is, None if there is none."""
    if not record.checkpoints:
        return None
    step = record.best.step if record.best and record.best.kept else None
    try:
        return walk.make(load(record.folder, step), limit)
    except Exception as error:  # of orbax and JAX, any: the rest of the page is worth having without it
        log.warning("no walk between z: %s", damage.reason(error))
        record.notes.append("The checkpoint for the walk cannot be used.")
        return None


def _notes(parts: list[Part], drawn: list[charts.Chart]) -> list[str]:
    """What was left out, and what could not be read."""
    several = len(parts) > 1
    notes = [f"{part.record.name}: {note}" if several else note for part in parts for note in part.record.notes]
    for part in parts:
        of_run = f" of {part.record.name}" if several else ""
        shown, total = len(part.timeline.steps), part.timeline.total
        if shown < total:
            notes.append(f"Of {total:,} grids of samples{of_run} {shown} are shown, evenly spaced.")
        odd = sum(not math.isfinite(value) for line in part.record.lines for value in line.values())
        if odd:
            notes.append(f"Values in metrics.jsonl{of_run} that are not finite, gaps in the curves: {odd:,}.")
    if any(chart.thinned for chart in drawn):
        notes.append("Long curves are drawn with fewer points; each dip and each spike is kept.")
    return notes
