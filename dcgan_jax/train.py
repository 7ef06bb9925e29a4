"""Training from a configuration to a run directory of checkpoints, metrics and samples: resume, loop. No maths."""

import functools
import logging
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from dcgan_jax import data, steps
from dcgan_jax.fields import INTERVALS
from dcgan_jax.page import make as page
from dcgan_jax.run import checkpoint, collapse, hooks, initial
from dcgan_jax.run.collapse import Collapsed
from dcgan_jax.run.hooks import Hook, Output, Snapshot
from dcgan_jax.run.prepare import Run, broadcast_start, prepare, validated
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

    Raises UserError before anything is compiled or written to `workdir`, TrainingError if a loss is not finite or
    `workdir` cannot be written to any more, and Preempted after SIGTERM or SIGINT, with everything saved. What one of
    several processes raises before training, all raise.
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
        log.info("resuming %s from step %d" if start else "starting %s at step %d", workdir, start)
        started_from = run_on_all(lambda: initial.networks(config) if first and state is None else {})
        run = prepare(config, workdir, claimed)
        if state is None:
            state = broadcast(initial.state(config, started_from))
        # Up to here nothing was written to the run directory.
        with report_lost_folder(workdir), ExitStack() as listening:
            requests = requests or listening.enter_context(closing(StopRequests()))
            with fail_on_all():
                if first and not claimed.lock:
                    held.push(take_new(workdir, wait))
            return _with_rollbacks(run, state, requests, int(broadcast(np.int32(claimed.rollbacks))))


def _with_rollbacks(run: Run, state: GANState, requests: StopRequests, rollbacks: int) -> GANState:
    while True:
        try:
            return _attempt(run, state, requests, rollbacks)
        except Collapsed as collapsed:
            go_back = functools.partial(collapse.go_back, run.config, run.workdir, collapsed, rollbacks)
            restored = run_on_all(go_back if jax.process_index() == 0 else lambda: None)
            _, earlier = broadcast_start(run.config, restored)
            assert earlier is not None
            state, rollbacks = earlier, rollbacks + 1


def _attempt(run: Run, state: GANState, requests: StopRequests, rollbacks: int) -> GANState:
    """Trains from a state on. Raises Collapsed if training collapses and the configuration wants to act on it."""
    config, start = run.config, int(state.step)
    with ExitStack() as opened:
        with fail_on_all():
            output = Output.open(run, start, opened) if jax.process_index() == 0 else None
        snapshot = Snapshot(config, state, {})  # compiled before there is anything to save in a hurry
        if output and start == 0:
            hooks.show_reals(output.monitor, run.image_set.images, config.seed)
            hooks.sample_hook(output, config.seed, config.sample_every).act(snapshot)
        stop = StopVote(requests, jax.process_count(), checkpoint.reached_preemption)
        reporter = Reporter(config, run.image_set.images, output, stop)
        dispatcher = _dispatcher(run, rollbacks)
        state = _loop(config, state, dispatcher, reporter, hooks.make_hooks(run, output, rollbacks), requests)
        if output:
            output.checkpoints.wait()
    best = reporter.best_so_far()
    report = page.at_end(run.workdir) if output else ""
    log.info("done: step %d in %s; launch/sample.py makes images%s%s", config.num_steps, run.workdir, best, report)
    return state


def _dispatcher(run: Run, rollbacks: int) -> dispatch.Dispatcher:
    config = collapse.retried(run.config, rollbacks)
    method = steps.from_config(config, devices.AXIS)
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
        functools.partial(steps.train_step, method),
        batches,
        batches_per_step=method.discriminator_steps,
        data_set=data_set if run.placement == "device" else None,
    )


def _loop(
    config: ConfigDict,
    host_state: GANState,
    dispatcher: dispatch.Dispatcher,
    reporter: Reporter,
    chosen: list[Hook],
    requests: StopRequests,
) -> GANState:
    start, end = int(host_state.step), config.num_steps
    # On the devices from the start: programs are compiled anew for arguments that lie elsewhere.
    state = devices.put(devices.replicate(host_state))
    spread = devices.map_step(functools.partial(collapse.spread, steps.from_config(config)), donate=False)
    jax.block_until_ready(spread(state.generator))  # compiled before the clock starts
    reporter.clock.start()
    size = dispatch.steps_per_call(config.steps_per_call, [config[name] for name in INTERVALS])
    waiting: Results | None = None
    with closing(data.prefetch(dispatcher.prepare, dispatch.schedule(start, end, size))) as calls:
        for number, call in enumerate(reporter.clock.timing_waits(calls), 1):
            compiles = dispatcher.compiles(call)
            with reporter.clock.paused() if compiles else nullcontext():
                state, metrics, any_asked = dispatcher(state, call, reporter.stop.vote(number))
                if compiles:
                    jax.block_until_ready(any_asked)
            if number == 1:
                requests.hold()  # from now on there is something to save
            # The results of the call before: they are there by now, and the device never waits for us.
            if waiting:
                reporter.write(waiting.steps.stop, reporter.read(waiting))
            step = call.steps.stop
            differences = spread(state.generator) if reporter.logs(step) else None
            waiting = Results(call.steps, metrics, any_asked, differences, compiles)
            stopping = reporter.stop.decided and step < end
            due = [hook for hook in chosen if hook.due(step, last=step == end, stopping=stopping)]
            if due:
                snapshot = _act(due, config, state, reporter, waiting)
                waiting = None
            reporter.check_saves()
            if stopping:
                reporter.wait_for_saves()
                best = reporter.best_so_far()
                raise Preempted(f"stopped at step {step} on {reporter.stop.reason}; the same command resumes{best}")
    return snapshot.state


def _act(due: list[Hook], config: ConfigDict, state: GANState, reporter: Reporter, results: Results) -> Snapshot:
    """What the hooks measure belongs to the line of the step; a collapse that it shows is not saved."""
    values = reporter.read(results)
    with reporter.clock.paused():
        snapshot = Snapshot(config, devices.first_replica(state), values)
        reporter.check_finite(snapshot)
        for hook in due:
            if hook.measures:
                hook.act(snapshot)
    reporter.write(snapshot.step, snapshot.metrics)
    with reporter.clock.paused():
        for hook in due:
            if not hook.measures:
                hook.act(snapshot)
    return snapshot
