"""The two ways a run ends badly: a mistake of the user's, and a failure of training."""


class UserError(Exception):
    """A mistake that the user can mend: one line that says what, where, found, expected, and what to do.

    Launchers print it and exit with code 2.
    """


class TrainingError(Exception):
    """Training cannot go on (a loss that is not finite, say). Launchers print it and exit with code 1."""
