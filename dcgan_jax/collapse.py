"""Whether training has collapsed: a rule on what the log shows anyway.

A run counts as collapsed when one and the same of these has held in every line of its log for at least 100 steps and
five lines:

- alike: the samples of a fixed set of z are nearly one image, after they were not. `spread`, the standard deviation of
  a pixel over them, averaged over pixels and divided by that of real images, is below 0.1, and has once been above.
- lost: the discriminator has won, and teaches nothing any more. It is right on 99.5% of real and of generated images,
  and at least half of its logits are saturated (beyond 10 on either side, where the loss is flat).

`config.on_collapse` says what then: 'warn' goes on, 'stop' ends the run, 'rollback' goes back to the best checkpoint
from before (by `config.best_metric`, or the newest of them) and tries again, at most three times.
"""

from ml_collections import ConfigDict

STEPS, LINES = 100, 5
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
        self._painted = False  # whether samples have ever differed: at the start they do not
        self._held: dict[str, list[int]] = {"alike": [], "lost": []}  # the lines in a row, by their steps

    def __call__(self, step: int, values: dict[str, float]) -> Collapsed | None:
        """What to raise, or None. values: a line of metrics.jsonl."""
        alike = values["spread"] < ALIKE
        self._painted |= not alike
        right = min(values["d_accuracy_real"], values["d_accuracy_fake"])
        now = {
            "alike": alike and self._painted,
            "lost": right >= RIGHT and values["d_saturated"] >= SATURATED,
        }
        told = {
            "alike": f"samples are nearly alike (spread {values['spread']:.3f} of real images')",
            "lost": f"the discriminator tells all images apart ({values['d_saturated']:.0%} of its logits saturated)",
        }
        for name, holds in now.items():
            self._held[name] = [*self._held[name], step] if holds else []
        for name, steps in self._held.items():
            if len(steps) >= LINES and step - steps[0] >= STEPS:
                return Collapsed(step, steps[0], told[name])
        return None
