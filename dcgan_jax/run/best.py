"""Which of several values is the best, by `config.best_is`."""

from collections.abc import Mapping


def sign(best_is: str) -> int:
    """The factor by which the best value becomes the smallest: -1 for 'highest', 1 for 'lowest'."""
    return -1 if best_is == "highest" else 1


def best_step(values: Mapping[int, float], best_is: str) -> int:
    """The step with the best value, the first of several. values: at least one, by step."""
    return min(sorted(values), key=lambda step: sign(best_is) * values[step])
