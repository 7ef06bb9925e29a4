"""Whether training has collapsed: a rule on what the log shows anyway.

A run counts as collapsed when in each of the last five lines of its log one and the same of these held:

- alike: the samples of a fixed set of z are nearly one image. `spread`, the standard deviation of a pixel over them,
  averaged over pixels and divided by the same of real images, is below 0.1.
- lost: the discriminator has won, and teaches nothing any more. It is right on 99.5% of real and of generated images,
  and at least half of its logits are saturated (beyond 10 on either side, where the loss is flat).

A run that is young is spared: its generator has not begun to paint in the first ten lines.

`config.on_collapse` says what then: 'warn' goes on, 'stop' ends the run, 'rollback' goes back to the best checkpoint
from before (by `config.best_metric`, or the newest of them) and tries again, at most three times.
"""

from collections import deque

from ml_collections import ConfigDict

LINES = 5
YOUNG = 10
ALIKE = 0.1
RIGHT, SATURATED = 0.995, 0.5
MOST_ROLLBACKS = 3


class Collapsed(Exception):
    """Training has collapsed. step: of the line that told it; since: of the first such line; reason: in few words."""

    def __init__(self, step: int, since: int, reason: str):
        super().__init__(f"step {step}: training has collapsed: {reason}")
        self.step, self.since = step, since


def retried(config: ConfigDict, rollbacks: int) -> ConfigDict:
    """What a run trains by after so many rollbacks: other noise, images in another order, half the learning rates.

    With the same ones it would collapse again, as it is a function of its seed.
    """
    config = config.copy_and_resolve_references()
    config.seed = (config.seed + 7919 * rollbacks) % 2**31
    config.generator_lr /= 2**rollbacks
    config.discriminator_lr /= 2**rollbacks
    return config


class Watch:
    """Sees each line of the log and says whether the run has collapsed."""

    def __init__(self) -> None:
        self._seen = 0
        self._alike: deque[bool] = deque(maxlen=LINES)
        self._lost: deque[bool] = deque(maxlen=LINES)

    def __call__(self, values: dict[str, float]) -> str | None:
        """What is wrong, in a few words, or None. values: a line of metrics.jsonl."""
        self._seen += 1
        self._alike.append(values["spread"] < ALIKE)
        self._lost.append(
            min(values["d_accuracy_real"], values["d_accuracy_fake"]) >= RIGHT and values["d_saturated"] >= SATURATED
        )
        if self._seen < YOUNG:
            return None
        if len(self._alike) == LINES and all(self._alike):
            return f"samples are nearly alike (spread {values['spread']:.3f} of real images')"
        if len(self._lost) == LINES and all(self._lost):
            return f"the discriminator tells all images apart ({values['d_saturated']:.0%} of its logits are saturated)"
        return None
