"""A page for each notebook: its text, its code and the outputs that are kept in it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def markdown(file: Path) -> str:
    """The page of a notebook."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(part for cell in cells for part in _parts(cell)) + "\n"


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield text
        return
    yield f"```python\n{text}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![What the code above shows](data:image/png;base64,{''.join(data['image/png']).strip()})"
        else:
            yield "```text\n" + "".join(output.get("text") or data["text/plain"]).rstrip() + "\n```"
