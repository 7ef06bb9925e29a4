"""The points of a sweep: fields and the values that they take, as a grid or by random search."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.fields import FIELDS, default_of, shown
from dcgan_jax.runtime.errors import UserError

Point = dict[str, Any]  # values by the names of fields

MAX_POINTS = 10_000
MAX_NAME = 255  # bytes, of a folder on most disks
_LOG = re.compile(r"[ :]+log$")
_DIGITS = 3  # of a number that is drawn


class Range(NamedTuple):
    """Numbers from low to high, both included; log: their logarithms are uniform."""

    low: float
    high: float
    log: bool

    def draw(self, rng: np.random.Generator, whole: bool) -> int | float:
        """One of them; whole: a whole number, otherwise of three digits, which its name has too."""
        low, high = (self.low - 0.5, self.high + 0.5) if whole else (self.low, self.high)
        value = math.exp(rng.uniform(math.log(low), math.log(high))) if self.log else rng.uniform(low, high)
        value = round(value) if whole else float(f"{value:.{_DIGITS - 1}e}")
        return type(value)(min(max(value, self.low), self.high))


Choices = list[Any] | Range


def parse(settings: Sequence[str]) -> dict[str, Choices]:
    """The values or ranges of fields that texts such as 'seed=0,1' and 'generator_lr=1e-4..1e-2 log' name.

    Values are separated by commas, or by semicolons if they hold commas themselves. Raises UserError for what no field
    can take; whether its value fits the others is for `config.validate`.
    """
    if not settings:
        raise UserError("--set: missing, expected a field and its values, such as --set generator_lr=1e-4,5e-4")
    parsed: dict[str, Choices] = {}
    for text in settings:
        name, equals, values = text.partition("=")
        name = name.strip().removeprefix("config.")
        if not equals or not name:
            raise UserError(f"--set: found {text!r}, expected FIELD=VALUE,VALUE, such as generator_lr=1e-4,5e-4")
        if name == "recipe":
            raise UserError("--set: found 'recipe', expected another field; sweep each recipe by itself, NAME:RECIPE")
        if name not in FIELDS:
            default_of(name)  # raises, with the nearest name
            raise UserError(f"config.{name}: unknown field; expected one of its own, such as {name}.source")
        if name in parsed:
            raise UserError(f"--set: found {name} twice, expected once; give all its values in one")
        parsed[name] = _choices(name, values.strip())
    return parsed


def _choices(name: str, text: str) -> Choices:
    number = type(FIELDS[name].default) in (int, float)
    if number and ".." in text:
        return _range(name, text)
    if not text:
        raise UserError(f"--set: found no values of {name}, expected some, such as {name}={_example(name)}")
    values = [value_of(name, part) for part in text.split(";" if ";" in text else ",")]
    for place, value in enumerate(values):
        if value in values[:place]:
            raise UserError(f"--set: found {shown(value)!r} twice among the values of {name}, expected once")
    return values


def _range(name: str, text: str) -> Range:
    numbers, log = _LOG.subn("", text)
    low, high = (value_of(name, number) for number in numbers.split("..", 1))
    if not low < high or not math.isfinite(high - low):
        raise UserError(f"--set: found {name}={text}, expected a range LOW..HIGH such as {name}=1..10")
    if log and low <= 0:
        raise UserError(f"--set: found {name}={text}, expected a number above 0 before the dots of a log range")
    return Range(low, high, bool(log))


def value_of(name: str, text: str) -> Any:
    """The value of a field that a text says. Raises UserError for a text that is not of the field's kind."""
    default, text = FIELDS[name].default, text.strip()
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(int(item) for item in text.split(",") if text)
        return type(default)(text)
    except (KeyError, ValueError):
        kinds = {bool: "True or False", int: "a whole number", float: "a number", tuple: "whole numbers"}
        raise UserError(f"--set: found {text!r} for {name}, expected {kinds[type(default)]}") from None


def _example(name: str) -> str:
    default = FIELDS[name].default
    return "False,True" if isinstance(default, bool) else shown(default) or "VALUE"


def grid(choices: Mapping[str, Choices]) -> list[Point]:
    """Every combination, the last field changing fastest. Raises UserError for a range, and for too many."""
    for name, values in choices.items():
        if isinstance(values, Range):
            raise UserError(f"--set: found a range for {name}, expected values; or give --random=N, to draw N points")
    lists = [values for values in choices.values() if isinstance(values, list)]
    _check_count(math.prod(map(len, lists)), "--set")
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*lists)]


def random(choices: Mapping[str, Choices], count: int, seed: int) -> list[Point]:
    """So many different points, drawn by a seed; those of a smaller count are the first of a larger one's.

    Raises UserError if there are not so many.
    """
    _check_count(count, "--random")
    points: list[Point] = []
    for point in itertools.islice(_drawn(choices, seed), 100 * count + 1000):
        if point not in points:
            points.append(point)
        if len(points) == count:
            return points
    raise UserError(f"--random: found {count}, but only {len(points)} different points; lower it, or widen --set")


def _drawn(choices: Mapping[str, Choices], seed: int) -> Iterator[Point]:
    rng = np.random.default_rng(seed)
    while True:
        yield {
            name: values.draw(rng, isinstance(FIELDS[name].default, int))
            if isinstance(values, Range)
            else values[rng.integers(len(values))]
            for name, values in choices.items()
        }


def _check_count(count: int, flag: str) -> None:
    if count > MAX_POINTS:
        raise UserError(f"{flag}: found {count} points, expected at most {MAX_POINTS}")


def name_of(point: Point) -> str:
    """The name of a point's folder, by its values: 'generator_lr=0.0001,seed=0'. Raises UserError if it is too long."""
    name = ",".join(f"{field}={quote(shown(value), safe=',+')}" for field, value in point.items())
    if len(name) > MAX_NAME:
        raise UserError(f"--set: found a name of {len(name)} letters for a folder, expected {MAX_NAME}; set less")
    return name


def applied(config: ConfigDict, point: Point) -> ConfigDict:
    """A copy of the configuration with the values of a point."""
    config = ConfigDict(config.to_dict())
    for field, value in point.items():
        section, _, name = field.rpartition(".")
        (config[section] if section else config)[name] = value
    return config
