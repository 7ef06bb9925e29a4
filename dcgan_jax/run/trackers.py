"""Weights & Biases and trackio, if `config.logger` asks for one: metrics, samples and the configuration of a run.

Neither may stop training: what fails is told once, and then left alone. The run is the same one after a resume, by a
name that is kept in the run directory.
"""

import importlib
import json
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict
from PIL import Image

from dcgan_jax.run import tags
from dcgan_jax.runtime import files
from dcgan_jax.runtime.errors import UserError

log = logging.getLogger("dcgan_jax")

PROJECT = "dcgan_jax"  # unless WANDB_PROJECT names another
NAME_FILE = "logger.json"


def check(logger: str) -> None:
    """Raises UserError if the logger's package is not installed. '' is no logger."""
    if logger:
        _package(logger)


def _package(logger: str) -> ModuleType:
    try:
        package = importlib.import_module(logger)
    except ImportError:
        package = ModuleType(logger)
    if not hasattr(package, "init"):  # a folder of that name, which wandb leaves behind, can be imported too
        raise UserError(f"config.logger: found {logger!r}, which is not installed; pip install {logger}")
    return package


class Tracker:
    """Passes on what a run measures and shows, to nothing if there is no logger."""

    def __init__(self, config: ConfigDict, workdir: Path):
        """workdir: exists, and keeps the name of the logger's run."""
        self._logger = config.logger
        self._run: Any = None
        if not config.logger:
            return
        self._package = _package(config.logger)
        start = {"wandb": _start_wandb, "trackio": _start_trackio}[config.logger]
        self._try(lambda: start(self._package, config, workdir), starts=True)

    def write(self, step: int, record: dict[str, float]) -> None:
        """Passes on a line of metrics.jsonl."""
        self._log(step, lambda: tags.scalars(record))

    def show(self, tag: str, picture: Image.Image, step: int) -> None:
        """Passes on a grid of images."""
        self._log(step, lambda: {tag: self._package.Image(picture)})

    def close(self) -> None:
        """Ends the logger's run."""
        self._try(lambda: self._package.finish())
        self._run = None

    def _log(self, step: int, values: Callable[[], dict[str, Any]]) -> None:
        if self._logger == "wandb":  # whose own steps may not go back, as they do when a run is resumed
            self._try(lambda: self._run.log(values() | {"step": step}))
        else:
            self._try(lambda: self._run.log(values(), step=step))

    def _try(self, act: Callable[[], Any], *, starts: bool = False) -> None:
        if self._run is None and not starts:
            return
        try:
            done = act()
            self._run = done if starts else self._run
        except Exception as error:
            self._run = None
            told = " ".join(str(error).split()) or type(error).__name__
            log.warning("config.logger: %s failed (%s); training goes on without it", self._logger, told)


def _start_wandb(wandb: ModuleType, config: ConfigDict, workdir: Path) -> Any:
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        id=_name(workdir),
        name=workdir.resolve().name,
        dir=str(workdir),
        config=tags.hyperparameters(config),
        resume="allow",
        allow_val_change=True,  # of num_steps, when a run is made longer
    )
    run.define_metric("*", step_metric="step")
    return run


def _start_trackio(trackio: ModuleType, config: ConfigDict, workdir: Path) -> Any:
    return trackio.init(
        project=PROJECT,
        name=f"{workdir.resolve().name}-{_name(workdir)}",
        config=tags.hyperparameters(config),
        resume="allow",
    )


def _name(workdir: Path) -> str:
    """What the logger knows the run by: drawn at its first start, then kept in the run directory."""
    file = workdir / NAME_FILE
    try:
        return str(json.loads(file.read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        name = secrets.token_hex(4)
        files.write_text(file, json.dumps({"id": name}) + "\n")
        return name
