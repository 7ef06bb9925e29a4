"""The images that a run was trained on, where they are at hand: nothing is downloaded, or written beside a run."""

import tempfile
import threading
from contextlib import ExitStack

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax import data
from dcgan_jax.runtime.errors import UserError

HERE_AT_ONCE = "digits"  # the source that comes with a library


class TrainingImages:
    """The training images of a configuration, opened when they are first asked for."""

    def __init__(self, config: ConfigDict):
        self._config = config
        self._lock = threading.Lock()
        self._images: np.ndarray | None = None

    def images(self) -> np.ndarray:
        """uint8 [N, H, W, C]. Raises UserError if they are not at hand."""
        with self._lock, ExitStack() as temporary:
            if self._images is None:
                config = self._config.copy_and_resolve_references()
                if config.data.source == HERE_AT_ONCE:
                    config.data.prepared = temporary.enter_context(tempfile.TemporaryDirectory())
                elif config.data.source == "prepared":
                    _check_local(config)
                elif data.find(config) is None:
                    raise UserError(
                        f"training images: none are prepared in {config.data.prepared!r}, expected those that the run "
                        "was trained on; start the explorer in the folder that the training was started in"
                    )
                self._images = data.load_any(config).images
        return self._images


def _check_local(config: ConfigDict) -> None:
    if "://" in config.data.path:
        raise UserError(
            f"training images: found {config.data.path!r}, expected a prepared set in a local folder, as nothing is "
            "downloaded"
        )
