"""Fewer of something long, so that the page stays small: points of a curve, pictures of a timeline."""

import itertools

import numpy as np


def points(values: np.ndarray, limit: int) -> np.ndarray:
    """The indices of at most `limit` of these values, float [N], in order: both ends, and each dip and each spike.

    Of each of limit/2 - 1 stretches of equal length, the lowest and the highest value. Those that are not finite come
    last.
    """
    count = len(values)
    if count <= limit:
        return np.arange(count)
    edges = np.linspace(0, count, limit // 2, dtype=int)
    low, high = np.where(np.isfinite(values), values, np.inf), np.where(np.isfinite(values), values, -np.inf)
    chosen = {0, count - 1}
    for start, stop in itertools.pairwise(edges):
        chosen |= {start + int(low[start:stop].argmin()), start + int(high[start:stop].argmax())}
    return np.array(sorted(chosen))


def evenly(items: list, limit: int, always: set) -> list:
    """At most `limit` items, 2 or more, evenly spaced, with both ends; those in `always` take the place of others."""
    if len(items) <= limit:
        return items
    chosen = {round(i) for i in np.linspace(0, len(items) - 1, limit)}
    for number in [number for number, item in enumerate(items) if item in always and number not in chosen]:
        inner = [other for other in chosen if 0 < other < len(items) - 1 and items[other] not in always]
        if inner:
            chosen.remove(min(inner, key=lambda other: abs(other - number)))
            chosen.add(number)
    return [items[number] for number in sorted(chosen)]
