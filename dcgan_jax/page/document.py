"""The page as one HTML file: everything is in it, and nothing in it is fetched from elsewhere."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from dcgan_jax.page.charts import Chart
from dcgan_jax.page.record import Record
from dcgan_jax.page.timeline import Timeline
from dcgan_jax.page.walk import Walk
from dcgan_jax.runtime.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"
# What tells a page of ours, which a newer one may replace, from a file of the user's.
MARK = '<meta name="generator" content="dcgan_jax report">'
HEAD_BYTES = 1024  # in which the mark stands


class Part(NamedTuple):
    """What is shown of one run by itself."""

    record: Record
    timeline: Timeline
    walk: Walk | None
    facts: dict[str, str]
    images: dict[str, str]
    command: str | None
    settings: dict[str, Any]
    changed: list[Any]


def libraries() -> tuple[ModuleType, ModuleType]:
    """Jinja and Plotly's `offline`. Raises UserError if one of them is not installed."""
    try:
        import jinja2
        import plotly.offline
    except ImportError as error:
        raise UserError(
            f"report: found no package {error.name}, expected plotly and jinja2 to be installed; "
            "pip install plotly jinja2 (the extra 'report')"
        ) from error
    return jinja2, plotly.offline


def render(parts: list[Part], charts: list[Chart], differing: dict[str, list[str]], notes: list[str]) -> str:
    """The file's text. All texts in it are escaped, but for Plotly's own code. Raises as `libraries`."""
    jinja2, offline = libraries()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_function"] = _as_json
    return environment.get_template("page.html").render(
        mark=environment.filters["safe"](MARK),
        style=_raw(environment, "page.css"),
        script=_raw(environment, "page.js"),
        plotly=environment.filters["safe"](offline.get_plotlyjs()),
        parts=parts,
        charts=charts,
        differing=differing,
        notes=notes,
        names=[part.record.name for part in parts],
    )


def is_ours(file: Path) -> bool:
    """Whether a file is a page that this package has written."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return MARK.encode() in opened.read(HEAD_BYTES)


def _raw(environment: Any, name: str) -> Any:
    return environment.filters["safe"]((TEMPLATES / name).read_text(encoding="utf-8"))


def _as_json(value: Any, **_: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
