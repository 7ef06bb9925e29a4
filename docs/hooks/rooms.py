"""The picture of the rooms: python docs/hooks/rooms.py > docs/rooms.svg

Boxes are the files and folders that LEVELS of tests/test_rooms.py names. What imports what is read from the code: a box
lies above all that it imports, and below its name stand those of them that no other one imports for it.
"""

import ast
import functools
import html
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "dcgan_jax"
WIDTH, WIDEST, GAP, ROW_GAP, LINE = 1080, 300, 12, 16, 15
LETTER = 6.4  # the width of one of the small text, in pixels
MOST = 5  # boxes side by side
STYLE = (
    "text{font-family:system-ui,sans-serif;fill:#1d2433;text-anchor:middle;font-size:12px}"
    ".name{font-size:15px;font-weight:600}.uses{fill:#3557a5}"
)


@functools.cache
def boxes() -> list[str]:
    """Files and folders of the package, such as 'models', 'ops', 'run.checkpoint'."""
    tree = ast.parse((ROOT / "tests" / "test_rooms.py").read_text(encoding="utf-8"))
    (value,) = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LEVELS"
    )
    return sorted(set().union(*ast.literal_eval(value)))


def files_of(box: str, all_boxes: list[str]) -> list[Path]:
    """The files of a box: itself, or those in its folder that are no boxes themselves."""
    place = PACKAGE / box.replace(".", "/")
    if not place.is_dir():
        return [place.with_suffix(".py")]
    files = [file for file in sorted(place.rglob("*.py")) if file.stem != "__init__"]
    return [file for file in files if ".".join(file.relative_to(PACKAGE).with_suffix("").parts) not in all_boxes]


def imports(file: Path, all_boxes: list[str]) -> Iterator[str]:
    """The boxes that a file imports from."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("dcgan_jax"):
            continue
        for alias in node.names:
            parts = f"{node.module}.{alias.name}".split(".")[1:]
            yield from [name for name in (".".join(parts[:2]), parts[0]) if name in all_boxes][:1]


def rows() -> tuple[list[list[str]], dict[str, list[str]]]:
    """Rows of boxes, the highest first, and for each box those that it imports and no other of these does for it."""
    names = boxes()
    direct = {box: {o for file in files_of(box, names) for o in imports(file, names)} - {box} for box in names}
    reached: dict[str, set[str]] = {}
    rank: dict[str, int] = {}

    def visit(box: str) -> None:
        for other in direct[box]:
            if other not in rank:
                visit(other)
        reached[box] = direct[box].union(*(reached[other] for other in direct[box]))
        rank[box] = max((rank[other] + 1 for other in direct[box]), default=0)

    for box in names:
        visit(box)
    nearest = {box: sorted(o for o in direct[box] if not any(o in reached[p] for p in direct[box])) for box in names}
    levels = [[box for box in names if rank[box] == number] for number in sorted(set(rank.values()))[::-1]]
    return [row[i : i + MOST] for row in levels for i in range(0, len(row), MOST)], nearest


def text_of(box: str, uses: list[str], width: float) -> list[tuple[str, str]]:
    """The lines below a box's name, each with its style."""
    names = boxes()
    columns = int((width - 14) / LETTER)
    if (PACKAGE / box.replace(".", "/")).is_dir():
        parts = {file.relative_to(PACKAGE / box).parts[0].removesuffix(".py") for file in files_of(box, names)}
        about = ", ".join(sorted(parts))
    else:
        about = (
            (ast.get_docstring(ast.parse(files_of(box, names)[0].read_text(encoding="utf-8"))) or "")
            .split("\n")[0]
            .replace("`", "")
        )
    lines = [(line, "") for line in textwrap.wrap(about, columns)]
    return lines + [(line, "uses") for line in textwrap.wrap(f"uses {', '.join(uses)}" if uses else "", columns)]


def svg() -> str:
    """The picture."""
    levels, nearest = rows()
    shapes, top = [], float(GAP)
    for row in levels:
        width = min(float(WIDEST), (WIDTH - GAP * (len(row) + 1)) / len(row))
        texts = [text_of(box, nearest[box], width) for box in row]
        height = 32 + LINE * max(map(len, texts))
        left = (WIDTH - len(row) * width - (len(row) - 1) * GAP) / 2
        for box, text in zip(row, texts, strict=True):
            shapes.append(_box(box, text, left, top, width, height))
            left += width + GAP
        top += height + ROW_GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:g}">',
            f"<style>{STYLE}</style>",
            '<rect width="100%" height="100%" rx="8" fill="#ffffff"/>',
            *shapes,
            "</svg>\n",
        ]
    )


def _box(name: str, text: list[tuple[str, str]], left: float, top: float, width: float, height: float) -> str:
    parts = [
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6" fill="#eef2f8" '
        'stroke="#5b6b87"/>'
    ]
    for number, (line, style) in enumerate([(name, "name"), *text]):
        y = top + 20 + number * LINE + 3 * (number > 0)
        parts.append(f'<text class="{style}" x="{left + width / 2:.0f}" y="{y:.0f}">{html.escape(line)}</text>')
    return "".join(parts)


if __name__ == "__main__":
    print(svg(), end="")
