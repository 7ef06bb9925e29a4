"""What a browser or a script sends, checked: anything may come, of any type and size."""

from typing import Any

from dcgan_jax.interpret.forget import Box
from dcgan_jax.runtime.errors import UserError

LONGEST_TEXT = 1000  # letters in a field
MAX_BOXES = 32


def whole(value: Any, name: str, least: int, most: int) -> int:
    """A whole number from `least` to `most`. Raises UserError for anything else; 3.0 is one."""
    within = not isinstance(value, bool) and isinstance(value, int | float) and least <= value <= most  # nan is not
    if not within or value != int(value):
        raise UserError(f"{name}: found {_shown(value)}, expected a whole number from {least} to {most}")
    return int(value)


def number(value: Any, name: str, least: float, most: float) -> float:
    """A finite number from `least` to `most`. Raises UserError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:  # nan is neither
        raise UserError(f"{name}: found {_shown(value)}, expected a number from {least:g} to {most:g}")
    return float(value)


def choice(value: Any, name: str, known: tuple[str, ...]) -> str:
    """One of the known texts. Raises UserError for anything else."""
    if not isinstance(value, str) or value not in known:
        raise UserError(f"{name}: found {_shown(value)}, expected one of {', '.join(known)}")
    return value


def numbers(value: Any, name: str, below: int, most: int) -> list[int]:
    """The whole numbers in a text such as '3, 17', each below `below`, at most `most` of them; [] for no text.

    Raises UserError for anything else.
    """
    parts = [part.strip() for part in _text(value, name).split(",") if part.strip()]
    if len(parts) > most:
        raise UserError(f"{name}: found {len(parts)} numbers, expected at most {most}")
    wrong = [part for part in parts if not _is_count(part) or int(part) >= below]
    if wrong:
        raise UserError(f"{name}: found {_shown(wrong[0])}, expected numbers from 0 to {below - 1}, such as 0, 1")
    return [int(part) for part in parts]


def boxes(value: Any, name: str) -> list[Box]:
    """The boxes in a text with a line SAMPLE: TOP, LEFT, BOTTOM, RIGHT for each. Raises UserError for anything else."""
    lines = [line for line in _text(value, name).splitlines() if line.strip()]
    if len(lines) > MAX_BOXES:
        raise UserError(f"{name}: found {len(lines)}, expected at most {MAX_BOXES}")
    found = []
    for line in lines:
        sample, _, sides = line.partition(":")
        parts = [part.strip() for part in (sample, *sides.split(","))]
        if len(parts) != 5 or not all(map(_is_count, parts)):
            raise UserError(f"{name}: found {_shown(line)}, expected SAMPLE: TOP, LEFT, BOTTOM, RIGHT in each line")
        found.append(Box(*map(int, parts)))
    return found


def place(value: Any, name: str) -> tuple[int, int]:
    """A pixel (x, y) that was clicked. Raises UserError for anything else."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UserError(f"{name}: found {_shown(value)}, expected a pixel [x, y]")
    x, y = (number(side, name, 0, 1e6) for side in value)
    return int(x), int(y)


def _text(value: Any, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{name}: found {_shown(value)}, expected text")
    if len(value) > LONGEST_TEXT:
        raise UserError(f"{name}: found {len(value)} letters, expected at most {LONGEST_TEXT}")
    return value


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _shown(value: Any) -> str:
    """A value for a message: short, whatever was sent."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
