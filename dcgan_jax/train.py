"""Training from a configuration to a run directory of checkpoints, metrics and samples: resume, loop. No maths."""

import functools
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from dcgan_jax import data, steps
from dcgan_jax import state as states
from dcgan_jax.fields import INTERVALS
from dcgan_jax.run import checkpoint, collapse, hooks, initial, overview, profile
from dcgan_jax.run.collapse import Collapsed
from dcgan_jax.run.hooks import Hook, Output, Snapshot
from dcgan_jax.run.monitor import Lap
from dcgan_jax.run.prepare import Run, broadcast_start, check_source_and_measures, prepare, validated
from dcgan_jax.run.reporter import Reporter, Results
from dcgan_jax.run.workdir import Claim, claim, report_lost_folder, take_new
from dcgan_jax.runtime import devices, dispatch
from dcgan_jax.runtime.errors import writable_path
from dcgan_jax.runtime.multihost import broadcast, fail_on_all, report_lost_processes, run_on_all
from dcgan_jax.runtime.signals import Preempted, StopRequests, StopVote
from dcgan_jax.state import GANState

log = logging.getLogger("dcgan_jax")


def train(
    config: ConfigDict, workdir: str | Path, *, requests: StopRequests | None = None, wait: float = 0
) -> GANState:
    """Trains to step `config.num_steps`, from the newest undamaged checkpoint in `workdir` if there is one.

    requests: what listens for SIGTERM and SIGINT; by default this function does. wait: seconds to wait for another
    process that trains in the directory to end. Of several processes, process 0 alone reads and writes `workdir`.

    Returns the final state, as numpy arrays of one replica. The same configuration and seed give the same state,
    whether the run was interrupted or not, on any number of devices and processes.

    Raises UserError before anything is written to `workdir` or waits for the compiler, TrainingError if a loss is not
    finite or `workdir` cannot be written to any more, and Preempted after SIGTERM or SIGINT, with everything saved.
    What one of several processes raises before training, all raise.
    """
    devices.check()
    with report_lost_processes(), ExitStack() as held:
        config = validated(config)
        first = jax.process_index() == 0
        claimed = run_on_all(lambda: claim(writable_path(workdir, "--workdir"), config, wait) if first else Claim())
        workdir = Path(workdir).expanduser()
        if claimed.lock:
            held.push(claimed.lock)  # until the end, through all rollbacks
        start, state = broadcast_start(config, claimed.state)
        if state is not None and start >= config.num_steps:
            log.info("nothing to do: %s is at step %d of %d", workdir, start, config.num_steps)
            return state
        started_from = run_on_all(lambda: initial.networks(config) if first and state is None else {})
        rollbacks = int(broadcast(np.int32(claimed.rollbacks)))
        check_source_and_measures(config)
        programs = _programs(config, start, rollbacks)  # compiled while images are prepared
        run = prepare(config, workdir, claimed, programs.wait)
        if state is None:
            state = broadcast(initial.state(config, started_from))
        log.info("%s", overview.table(config, workdir, state))
        # Up to here nothing was written to the run directory.
        with report_lost_folder(workdir), ExitStack() as listening:
            requests = requests or listening.enter_context(closing(StopRequests()))
            with fail_on_all():
                if first and not claimed.lock:
                    held.push(take_new(workdir, wait))
            log.info("resuming %s from step %d" if start else "starting %s at step %d", workdir, start)
            return _with_rollbacks(run, state, requests, rollbacks, programs)


def _with_rollbacks(
    run: Run, state: GANState, requests: StopRequests, rollbacks: int, programs: dispatch.Programs
) -> GANState:
    while True:
        try:
            return _attempt(run, state, requests, rollbacks, programs)
        except Collapsed as collapsed:
            go_back = functools.partial(collapse.go_back, run.config, run.workdir, collapsed, rollbacks)
            restored = run_on_all(go_back if jax.process_index() == 0 else lambda: None)
            _, earlier = broadcast_start(run.config, restored)
            assert earlier is not None
            state, rollbacks = earlier, rollbacks + 1
            programs = _programs(run.config, int(state.step), rollbacks)


def _attempt(
    run: Run, state: GANState, requests: StopRequests, rollbacks: int, programs: dispatch.Programs
) -> GANState:
    """Trains from a state on. Raises Collapsed if training collapses and the configuration wants to act on it."""
    config, start = run.config, int(state.step)
    with ExitStack() as opened:
        with fail_on_all():
            output = Output.open(run, start, opened) if jax.process_index() == 0 else None
        on_device = jax.device_put(state, jax.local_devices()[0])
        snapshot = Snapshot(config, on_device, {})  # compiled before there is anything to save in a hurry
        if output and start == 0:
            hooks.show_reals(output.monitor, run.image_set.images, config.seed)
            hooks.sample_hook(output, config.seed, config.sample_every).act(snapshot)
        stop = StopVote(requests, jax.process_count(), checkpoint.reached_preemption)
        reporter = Reporter(config, run.image_set.images, output, stop)
        dispatcher = _dispatcher(run, rollbacks, programs)
        state = _loop(run, state, dispatcher, reporter, hooks.make_hooks(run, output, rollbacks), requests)
        if output:
            output.checkpoints.wait()
    from dcgan_jax.page import make as page  # imported late: the first step need not wait for it

    best = reporter.best_so_far()
    report = page.at_end(run.workdir) if output else ""
    log.info("done: step %d in %s; launch/sample.py makes images%s%s", config.num_steps, run.workdir, best, report)
    return state


def _programs(config: ConfigDict, start: int, rollbacks: int) -> dispatch.Programs:
    """The programs of the steps from `start` on, in the making: they depend on no images."""
    method = steps.from_config(collapse.retried(config, rollbacks), devices.AXIS)
    count, share = jax.local_device_count(), config.batch_size * config.discriminator_steps // jax.device_count()
    batch = {"images": jax.ShapeDtypeStruct((count, share, *config.image_size, config.channels), np.uint8)}
    if config.num_classes:
        batch["labels"] = jax.ShapeDtypeStruct((count, share), np.int32)
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), states.abstract(config))
    sizes = dispatch.sizes(start, config.num_steps, _steps_per_call(config))
    return dispatch.Programs(functools.partial(steps.train_step, method), state, batch, sizes)


def _steps_per_call(config: ConfigDict) -> int:
    return dispatch.steps_per_call(config.steps_per_call, [config[name] for name in INTERVALS])


def _dispatcher(run: Run, rollbacks: int, programs: dispatch.Programs) -> dispatch.Dispatcher:
    config = collapse.retried(run.config, rollbacks)
    images, labels, *_ = run.image_set
    data_set = {"images": images} | ({} if labels is None else {"labels": labels})
    batches = data.Batches(
        run.image_set,
        config.batch_size,
        config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return dispatch.Dispatcher(
        programs,
        batches,
        batches_per_step=config.discriminator_steps,
        data_set=data_set if run.placement == "device" else None,
    )


class _Made(NamedTuple):
    """What one call of the devices made, and what is to be done with it."""

    results: Results
    due: list[Hook]
    state: GANState | None  # of one replica, on its device, if anything is due

    @property
    def step(self) -> int:
        return self.results.steps.stop


def _loop(
    run: Run,
    host_state: GANState,
    dispatcher: dispatch.Dispatcher,
    reporter: Reporter,
    chosen: list[Hook],
    requests: StopRequests,
) -> GANState:
    config, start, end = run.config, int(host_state.step), run.config.num_steps
    # On the devices from the start: programs are compiled anew for arguments that lie elsewhere.
    state = devices.put(devices.replicate(host_state))
    jax.block_until_ready(_spread(config, state))  # compiled before the clock starts
    reporter.clock.start()
    waiting: _Made | None = None
    with ExitStack() as opened:
        opened.enter_context(closing(reporter.worker))
        schedule = dispatch.schedule(start, end, _steps_per_call(config))
        calls = opened.enter_context(closing(data.prefetch(dispatcher.prepare, schedule)))
        timed = reporter.clock.timing_waits(calls)
        traced = opened.enter_context(closing(profile.traced(timed, config, run.workdir, reporter.clock.paused)))
        for number, call in enumerate(traced, 1):
            compiles = dispatcher.compiles(call)
            with reporter.clock.paused() if compiles else nullcontext():
                state, metrics, any_asked = dispatcher(state, call, reporter.stop.vote(number))
                if compiles:
                    jax.block_until_ready(any_asked)
            if number == 1:
                requests.hold()  # from now on there is something to save
            # The results of the call before: they are there by now, and the device never waits for us.
            if waiting:
                _report(waiting, config, reporter)
            step = call.steps.stop
            differences = _spread(config, state) if reporter.logs(step) else None
            stopping = reporter.stop.decided and step < end
            due = [hook for hook in chosen if hook.due(step, last=step == end, stopping=stopping)]
            results = Results(call.steps, metrics, any_asked, differences, compiles)
            waiting = _Made(results, due, devices.copy_of_replica(state) if due else None)
            if due and (step == end or stopping or not reporter.worker.beside):
                _report(waiting, config, reporter)
                waiting = None
            reporter.check_saves()
            if stopping:
                reporter.wait_for_saves()
                best = reporter.best_so_far()
                raise Preempted(f"stopped at step {step} on {reporter.stop.reason}; the same command resumes{best}")
        reporter.worker.wait()
    return reporter.last_state


def _spread(config: ConfigDict, state: GANState) -> jax.Array:
    return collapse.spread(config, devices.copy_of_replica(state.generator.replace(opt_state=())))


def _report(made: _Made, config: ConfigDict, reporter: Reporter) -> None:
    """Writes the line of a call, and does what is due; beside training, this hands both over."""
    values, clock, worker = reporter.read(made.results), reporter.clock, reporter.worker
    if not reporter.worker.beside:
        worker.do(functools.partial(_act, made, config, reporter, values, clock.lap, clock.paused))
        return
    laps = [clock.lap()] if reporter.logs(made.step) else []
    with clock.paused():  # only if too much is waiting
        worker.do(functools.partial(_act, made, config, reporter, values, laps.pop, nullcontext))


def _act(
    made: _Made,
    config: ConfigDict,
    reporter: Reporter,
    values: dict[str, float],
    lap: Callable[[], Lap],
    paused: Callable[[], AbstractContextManager[None]],
) -> None:
    """What the hooks measure belongs to the line of the step; a collapse that it shows is not saved."""
    if made.state is None:
        reporter.write(made.step, values, lap)
        return
    with paused():
        snapshot = Snapshot(config, made.state, values)
        reporter.check_finite(snapshot)
        for hook in made.due:
            if hook.measures:
                hook.act(snapshot)
    reporter.write(snapshot.step, snapshot.metrics, lap)
    with paused():
        for hook in made.due:
            if not hook.measures:
                hook.act(snapshot)
    reporter.last_state = snapshot.state
