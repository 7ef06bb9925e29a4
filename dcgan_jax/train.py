"""Training from a configuration to a folder of checkpoints, metrics and samples: build, resume, loop. No maths."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NoReturn, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization
from ml_collections import ConfigDict

from dcgan_jax import calibration, calls, checkpoint, data, parallel, steps
from dcgan_jax import config as configuration
from dcgan_jax import state as states
from dcgan_jax.agreement import agreeing, all_do, broadcast, check_equal, telling_of_lost_processes
from dcgan_jax.collapse import Collapsed, Watch, retried
from dcgan_jax.errors import TrainingError, UserError, writable_path
from dcgan_jax.evaluation import evaluate, report
from dcgan_jax.evaluation.evaluate import Evaluator
from dcgan_jax.inference import TrainedGAN
from dcgan_jax.monitor import Monitor
from dcgan_jax.state import GANState
from dcgan_jax.stop import Preempted, StopRequests
from dcgan_jax.workdir import Claim, check_data, claim, go_back, take, telling_of_a_lost_folder

log = logging.getLogger("dcgan_jax")

GRID = 64  # images in a grid of samples


def train(
    config: ConfigDict, workdir: str | Path, *, requests: StopRequests | None = None, wait: float = 0
) -> GANState:
    """Trains to step `config.num_steps`, from the newest whole checkpoint in `workdir` where there is one.

    requests: what listens for SIGTERM and SIGINT; by default this does, while it trains. wait: seconds to wait for
    another process that trains in the folder to end. On several processes, process 0 alone reads and writes `workdir`.

    Returns the final state, as numpy arrays of one replica. The same configuration and seed give the same state,
    whether the run was interrupted or not, on any number of devices and processes.

    Raises UserError before anything is compiled or written, TrainingError where a loss is not finite or the folder
    cannot be written to any more, and Preempted after SIGTERM or SIGINT, with everything saved. On several processes,
    what one of them raises before training, all raise.
    """
    with telling_of_lost_processes():
        return _train(config, workdir, requests, wait)


def _train(config: ConfigDict, workdir: str | Path, requests: StopRequests | None, wait: float) -> GANState:
    with agreeing():
        config = configuration.validate(config)
        if config.dtype == "float64" and jnp.result_type(float) != jnp.float64:
            raise UserError(
                "config.dtype: found 'float64' without 64-bit JAX, expected 'float32'; or set JAX_ENABLE_X64=1"
            )
        parallel.check_batch_size(config.batch_size, synchronised=config.sync_batch_norm)
    check_equal(_settings(config))
    with ExitStack() as stack:
        nothing = Claim(None, None, None, 0)
        first = jax.process_index() == 0
        claimed = all_do(lambda: claim(writable_path(workdir, "--workdir"), config, wait) if first else nothing)
        workdir = Path(workdir).expanduser()
        if claimed.lock:
            stack.enter_context(claimed.lock)
        start, state = _shared_start(config, claimed.state)
        if state is not None and start >= config.num_steps:
            log.info("nothing to do: %s is at step %d of %d", workdir, start, config.num_steps)
            return state
        log.info("resuming %s from step %d" if start else "starting %s at step %d", workdir, start)

        image_set = _load_images(config)
        with agreeing():
            if claimed.card:
                root = Path(config.data.prepared).expanduser()
                check_data(image_set.card, claimed.card, workdir, root)
            placement = calls.placement(config, image_set)
        check_equal({"config.data.placement": placement})
        evaluator = all_do(lambda: _evaluator(config))
        if state is None:
            state = broadcast(jax.device_get(states.create(config)))
        # Up to here nothing was written.
        log.info(
            "%d images of %s on %s, read from the %s's memory",
            len(image_set.images),
            image_set.images.shape[1:],
            _devices(),
            placement,
        )
        with telling_of_a_lost_folder(workdir), ExitStack() as writing:
            requests = requests or writing.enter_context(closing(StopRequests()))
            rollbacks = int(broadcast(np.int32(claimed.rollbacks)))
            while True:
                try:
                    with ExitStack() as running:
                        with agreeing():
                            run = _Run(config, workdir, image_set, start, placement, evaluator, rollbacks, claimed.lock)
                            running.enter_context(closing(run))
                        return run.train(state, requests)
                except Collapsed as collapsed:
                    start, state = _rolled_back(config, workdir, collapsed, rollbacks)
                    rollbacks += 1


def _settings(config: ConfigDict) -> dict[str, Any]:
    """What must be the same on all processes; images may lie in another place on each."""
    settings = {f"config.{name}": value for name, value in configuration.flatten(config.to_dict()).items()}
    for name in ("config.data.path", "config.data.prepared"):
        del settings[name]
    return settings | {f"versions.{name}": value for name, value in checkpoint.versions().items()}


def _shared_start(config: ConfigDict, found: GANState | None) -> tuple[int, GANState | None]:
    """The step to go on from, and the state there (None at the start), that process 0 found, on all processes."""
    start = int(broadcast(np.int32(found.step if found else 0)))
    if not start:
        return 0, None
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), states.abstract(config))
    return start, broadcast(found or empty)


def _load_images(config: ConfigDict) -> data.ImageSet:
    # Process 0 first: where the disk is shared, the others find prepared what would collide if all prepared at once.
    first = jax.process_index() == 0
    found = all_do(lambda: data.load(config) if first else None)
    image_set = all_do(lambda: found or data.load(config))
    check_equal({f"data.{name}": image_set.card[name] for name in ("count", "sha256")})
    return image_set


def _evaluator(config: ConfigDict) -> Evaluator | None:
    if not config.eval_every:
        return None
    found = evaluate.from_config(
        config, config.eval_metrics, config.eval_features, weights=config.inception_weights, seed=config.seed
    )
    known = [*configuration.METRICS, *(value for recipe in found.recipes for value in recipe.values)]
    if config.best_metric and config.best_metric not in known:
        raise UserError(f"config.best_metric: found {config.best_metric!r}, expected one of {', '.join(known)}")
    return found


def _devices() -> str:
    kind = jax.devices()[0].device_kind
    return f"{jax.device_count()} device(s) ({kind}), {jax.process_count()} process(es)"


def _spread_of(image_set: data.ImageSet) -> float:
    """What `steps.make_spread` measures, of real images."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(image_set.images))[:1024])
    # Not of zero for a set of one image, as in a trial: then nothing is alike.
    return max(float(np.std(image_set.images[chosen] / 127.5, axis=0).mean()), 1e-6)


def _rolled_back(config: ConfigDict, workdir: Path, collapsed: Collapsed, rollbacks: int) -> tuple[int, GANState]:
    """The step to go on from after a collapse, and the state there; what came after it is set aside."""

    def back() -> GANState:
        return go_back(config, workdir, collapsed, rollbacks)

    found = all_do(lambda: back() if jax.process_index() == 0 else None)
    start, state = _shared_start(config, found)
    assert state is not None
    return start, state


class _Run:
    """One run of the loop from step `start` on, with what it holds open."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        image_set: data.ImageSet,
        start: int,
        placement: str,
        evaluator: Evaluator | None,
        rollbacks: int,
        held: TextIO | None,
    ):
        self.config, self.workdir, self.image_set, self.start = config, workdir, image_set, start
        self.placement, self.evaluator, self.rollbacks = placement, evaluator, rollbacks
        self.watch = Watch()
        self.spread = parallel.map_step(steps.make_spread(config), donate=False)
        self.real_spread = _spread_of(image_set)
        self.waited = 0.0  # seconds for data, since the last line of metrics
        self.warned = False  # of a collapse
        self.stopping = False  # whether all processes have agreed to stop
        self.opened = ExitStack()
        self.checkpoints: checkpoint.Checkpoints | None = None
        self.monitor: Monitor | None = None
        if jax.process_index() == 0:  # it alone writes
            with ExitStack() as opened:
                opened.enter_context(held or take(workdir))
                if checkpoint.steps(workdir) and not start:
                    raise UserError(f"workdir: another process has trained in {str(workdir)!r} meanwhile; start again")
                checkpoint.set_aside(workdir, newer_than=start)
                self.checkpoints = checkpoint.Checkpoints(
                    workdir,
                    keep=config.keep,
                    keep_best=config.keep_best,
                    best_metric=config.best_metric,
                    best_is=config.best_is,
                )
                opened.enter_context(closing(self.checkpoints))
                self.monitor = Monitor(workdir, config, start_step=start)
                opened.enter_context(closing(self.monitor))
                self.opened = opened.pop_all()
        self.meta = {
            "config": json.loads(config.to_json()),
            "versions": checkpoint.versions(),
            "data": image_set.card,
            "rollbacks": rollbacks,
        }

    def close(self) -> None:
        self.opened.close()

    def train(self, host_state: GANState, requests: StopRequests) -> GANState:
        calibrated = self._calibrated(host_state)  # compiled before there is anything to save in a hurry
        if self.start == 0:
            self._show_reals()
            self._sample(0, calibrated)
        host_state = self._loop(host_state, requests)
        if self.checkpoints:
            self.checkpoints.wait()
        log.info("done: step %d in %s; launch/sample.py makes images", self.config.num_steps, self.workdir)
        return host_state

    def _loop(self, host_state: GANState, requests: StopRequests) -> GANState:
        config = self.config
        votes = {asked: parallel.vote(asked) for asked in (False, True)}
        state = parallel.replicate(host_state)
        pending: tuple[range, Any, Any, Any] | None = None
        for number, (made, call, arguments) in enumerate(self._calls(), 1):
            state, metrics, stop = call(state, votes[self._asked_to_stop(requests, number)], *arguments)
            # The metrics of the call before: its numbers are there by now, and the device never waits for us.
            if pending:
                self._report(*pending)
            step = made.stop
            pending = (made, metrics, stop, self.spread(state.generator) if self._logs(step) else None)
            if number == 1:
                jax.block_until_ready(stop)
                requests.hold()
            last = step == config.num_steps
            stopping = self._should_stop(requests) and not last
            sampling = last or step % config.sample_every == 0
            evaluating = self.evaluator and (last or step % config.eval_every == 0)
            saving = last or step % config.checkpoint_every == 0 or stopping or evaluating
            if sampling or saving:
                values = self._report(*pending)
                pending = None
                host_state = self._calibrated(parallel.first_replica(state))
                self._check_finite(step, host_state)
                if sampling:
                    self._sample(step, host_state)
                if evaluating:
                    values |= self._evaluate(step, host_state)
                if saving and self.checkpoints and self.monitor:
                    self.monitor.sync()
                    self.checkpoints.save(step, host_state, self.meta, values)
            if self.checkpoints:
                self.checkpoints.check()
            if stopping:
                if self.checkpoints:
                    self.checkpoints.wait()
                asked = requests.name or "a request to another process"
                raise Preempted(f"stopped at step {step} on {asked}; the same command resumes")
        return host_state

    def _asked_to_stop(self, requests: StopRequests, call: int) -> bool:
        return requests.name is not None or (jax.process_count() > 1 and checkpoint.reached_preemption(call))

    def _should_stop(self, requests: StopRequests) -> bool:
        # Alone there is nobody to agree with. Otherwise the votes of an earlier call tell, alike on all processes.
        return self.stopping or (jax.process_count() == 1 and requests.name is not None)

    def _calls(self) -> Iterator[tuple[range, Callable, tuple]]:
        """Each call in turn: from which step to which, the function, and the arguments that follow state and vote.

        They are made ahead of time; counts the seconds that the loop waits for them.
        """
        ready = calls.Calls(retried(self.config, self.rollbacks), self.image_set, self.placement)
        schedule = calls.schedule(self.start, self.config.num_steps, calls.steps_per_call(self.config))
        with closing(data.ahead(lambda made: (made, *ready(made)), schedule)) as ahead:
            while True:
                began = time.perf_counter()
                call = next(ahead, None)
                self.waited += time.perf_counter() - began
                if call is None:
                    return
                yield call

    def _logs(self, step: int) -> bool:
        # A call never goes beyond a step that is due for a line.
        return step % self.config.log_every == 0 or step == self.config.num_steps

    def _report(
        self, made: range, metrics: dict[str, jax.Array], stop: jax.Array, spread: jax.Array | None
    ) -> dict[str, float]:
        """Writes down what the steps of a call came to, and returns it for the last one. Raises Collapsed."""
        self.stopping |= bool(parallel.first_replica(stop))
        columns = {name: np.atleast_1d(column) for name, column in parallel.first_replica(metrics).items()}
        for row, step in enumerate(range(made.start + 1, made.stop + 1)):
            values = {name: float(column[row]) for name, column in columns.items()}
            if not all(map(math.isfinite, values.values())):
                self._diverged(step, ", ".join(f"{name} is {value}" for name, value in sorted(values.items())))
            if self.monitor:
                self.monitor.advance()
        if spread is None:
            if made.start == self.start and self.monitor:
                self.monitor.start_clock(step)
                self.waited = 0.0
            return values
        values["spread"] = float(parallel.first_replica(spread)) / self.real_spread
        collapsed = self.watch(step, values)
        values["collapsed"] = float(collapsed is not None)
        if self.monitor:
            epoch = step * self.config.batch_size / len(self.image_set.images)
            self.monitor.metrics(step, values | {"epoch": round(epoch, 4)}, waited=self.waited)
            self.waited = 0.0
        if collapsed and self.config.on_collapse != "warn":
            raise collapsed
        if collapsed and not self.warned:
            log.warning(
                "%s. Checkpoints from before step %d may be better; --config.on_collapse=rollback goes back by itself",
                collapsed,
                collapsed.since,
            )
        self.warned = collapsed is not None
        return values

    def _check_finite(self, step: int, state: GANState) -> None:
        # A loss stays finite a step longer than the weights that it came from.
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
            self._diverged(step, "the state holds numbers that are not finite")

    def _diverged(self, step: int, what: str) -> NoReturn:
        kept = "process 0 tells which checkpoint is the last good one"
        all_do(lambda: self.checkpoints.wait() if self.checkpoints else None)
        if self.checkpoints:
            last = self.checkpoints.latest_step()
            kept = f"the checkpoint of step {last} is the last good one" if last else "there is no checkpoint yet"
        raise TrainingError(
            f"step {step}: {what}; {kept}. Try lower learning rates (--config.discriminator_lr, "
            "--config.generator_lr), another --config.seed, or --config.dtype=float32, in another --workdir"
        )

    def _calibrated(self, state: GANState) -> GANState:
        """The state with batch statistics that fit the moving average (rule 4)."""
        return state.replace(ema=jax.device_get(calibration.calibrate(self.config, state.ema)))

    def _sample(self, step: int, state: GANState) -> None:
        if self.monitor:
            gan = TrainedGAN(self.config, serialization.to_state_dict(state))
            self.monitor.images(f"step_{step:08d}", gan.sample(GRID, self.config.seed), step)

    def _evaluate(self, step: int, state: GANState) -> dict[str, float]:
        """Measures the samples of this step, as launch/evaluate.py does, writes that down, and returns the values."""
        assert self.evaluator
        gan = TrainedGAN(self.config, serialization.to_state_dict(state))
        lines = self.evaluator(lambda indices: gan.sample_at(indices, self.config.seed), step=step)
        values = {line["metric"]: line["value"] for line in lines}
        if self.monitor:
            report.append(self.workdir / report.NAME, lines)
            self.monitor.evaluation(step, values)
            report.curves(report.read(self.workdir / report.NAME), self.workdir / "evaluation")
        return values

    def _show_reals(self) -> None:
        if self.monitor:
            # From all over the set: the first ones may all be of one class.
            chosen = np.random.default_rng(self.config.seed).permutation(len(self.image_set.images))[:GRID]
            self.monitor.images("reals", self.image_set.images[np.sort(chosen)], 0)
