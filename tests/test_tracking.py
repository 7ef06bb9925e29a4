"""What a run tells besides metrics.jsonl: its settings, TensorBoard, a profile, Weights & Biases and trackio."""

import gzip
import json
import re
import struct
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import SMALL, call
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from dcgan_jax import state, train
from dcgan_jax.fields import METRICS, check_value
from dcgan_jax.run import monitor, overview, profile, tags, trackers
from dcgan_jax.runtime.errors import UserError


class FakeLogger(ModuleType):
    """A package with the part of wandb's and trackio's interface that is used; it writes down its calls."""

    def __init__(self, name, fails=()):
        super().__init__(name)
        self.calls, self.fails = [], fails

    def _note(self, what, *values):
        self.calls.append((what, *values))
        if what in self.fails:
            raise ConnectionError("no\nnetwork")

    def init(self, **settings):
        self._note("init", settings)
        return self

    def define_metric(self, name, step_metric):
        self._note("define_metric", name, step_metric)

    def log(self, values, step=None):
        self._note("log", values, step)

    def Image(self, picture):
        return "image", picture.size

    def finish(self):
        self._note("finish")

    def of(self, what):
        return [call[1:] for call in self.calls if call[0] == what]


@pytest.fixture
def package(monkeypatch):
    """package(name, fails=()) puts a logger in the place of one that is or is not installed."""

    def put(name, fails=()):
        monkeypatch.setitem(sys.modules, name, FakeLogger(name, fails))
        return sys.modules[name]

    return put


def events(folder):
    """The events in TensorBoard's files: of each the length of the record in 8 bytes, 4 of its check, the record, 4."""
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def test_a_run_with_a_profile_and_a_logger(tiny, tmp_path, package, caplog):
    wandb = package("wandb")
    every = dict(num_steps=4, log_every=2, sample_every=4, checkpoint_every=4)
    config = tiny(**every, profile="1:1", logger="wandb")
    with caplog.at_level("INFO", logger="dcgan_jax"):
        train.train(config, tmp_path / "run")
    told = [record.getMessage() for record in caplog.records]
    settings = next(text for text in told if "parameters " in text)
    assert "  networks    width=4  latent_dim=6\n" in settings
    assert f"  samples     {tmp_path}/run/samples" in settings

    (trace,) = (tmp_path / "run" / "profile").rglob("*.trace.json.gz")
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"], "what Perfetto opens"
    (planes,) = (tmp_path / "run" / "profile").rglob("*.xplane.pb")  # what TensorBoard opens
    assert any(plane.name == "/host:CPU" for plane in jax.profiler.ProfileData.from_file(str(planes)).planes)
    assert any(f"profile: {tmp_path}/run/profile" in text for text in told)

    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert {*METRICS, "images_per_sec", "data_wait", "spread", "collapsed", "epoch"} < lines[0].keys(), "as ever"
    logged = [values for values, _ in wandb.of("log")]
    assert [values for values in logged if "loss/d_loss" in values] == [
        tags.scalars(line) | {"step": line["step"]} for line in lines
    ]
    pictures = [(name, values["step"]) for values in logged for name in ("reals", "samples") if name in values]
    assert pictures == [("reals", 0), ("samples", 0), ("samples", 4)]
    assert wandb.calls[-1] == ("finish",)
    ((settings,),) = wandb.of("init")
    assert (settings["config"]["width"], settings["config"]["image_size"]) == (4, "16,16")
    assert wandb.of("define_metric") == [("*", "step")], "a resumed run goes on from an earlier step"
    _check_tensorboard(tmp_path / "run" / "tensorboard", lines)


def _check_tensorboard(folder, lines):
    values = [(event.step, value) for event in events(folder) for value in event.summary.value]
    losses = [(step, value.simple_value) for step, value in values if value.tag == "loss/d_loss"]
    assert losses == [(line["step"], np.float32(line["d_loss"])) for line in lines]
    found = {value.tag for _, value in values}
    assert {"speed/images_per_sec", "discriminator/d_real", "quality/spread", "samples", "reals"} < found
    (text,) = (value for _, value in values if value.tag == "config/text_summary")
    assert b'"width": 4' in text.tensor.string_val[0]
    of_plugin = {
        value.tag: HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for _, value in values
        if value.metadata.plugin_data.plugin_name == "hparams"
    }
    session = of_plugin["_hparams_/session_start_info"].session_start_info
    assert session.hparams["width"].number_value == 4
    compared = [info.name.tag for info in of_plugin["_hparams_/experiment"].experiment.metric_infos]
    assert compared == ["loss/d_loss", "loss/g_loss", "speed/images_per_sec"]


def test_results_that_runs_are_compared_by_have_tags_that_are_written(tiny):
    assert tags.results(tiny(quality=True))[-1] == tags.tag("quality") == "quality/quality"
    assert tags.results(tiny(best_metric="d_loss")) == ["loss/d_loss", "loss/g_loss", "speed/images_per_sec"]
    assert tags.tag("fid10k_train") == "quality/fid10k_train"
    assert not any(tags.tag(name).startswith("quality/") for name in METRICS)


def test_what_is_measured_afterwards_has_the_tags_of_training(tmp_path):
    monitor.add_scalars(tmp_path, 7, {"fid50k_train": 2.5})
    assert [(e.step, v.tag) for e in events(tmp_path) for v in e.summary.value] == [(7, "quality/fid50k_train")]


def test_settings_are_those_that_differ_and_fit_on_lines(tiny, tmp_path):
    config = tiny(augment="color,cutout")
    config.data.path = "my pictures/" + "x" * 150
    table = overview.table(config, tmp_path, state.create(config))
    abstract = state.abstract(config)
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(network.params))
        for network in (abstract.generator, abstract.discriminator)
    ]
    assert f"  parameters  generator={sizes[0]:,}  discriminator={sizes[1]:,}\n" in table
    told = re.split(r"\n\s*|  +", table)
    assert {"images", "image_size=16,16", "augment=color,cutout", f"data.path={config.data.path}"} < set(told)
    assert "b1=" not in table
    assert all(len(line) <= 115 for line in table.splitlines() if "x" * 150 not in line)


def calls(size, end, start=0):
    return [SimpleNamespace(steps=range(first, first + size)) for first in range(start, end, size)]


@pytest.fixture
def traces(monkeypatch):
    """When traces began and ended: ('begin' or 'end', the number of calls that were made until then)."""
    seen = SimpleNamespace(made=0, when=[])
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: seen.when.append(("begin", seen.made)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: seen.when.append(("end", seen.made)))
    return seen


@pytest.mark.parametrize(
    ("wanted", "size", "start", "when"),
    [
        ("2:3", 1, 0, [("begin", 2), ("end", 6)]),
        ("0:1", 1, 0, [("begin", 0), ("end", 2)]),
        ("5:2", 4, 0, [("begin", 1), ("end", 3)]),
        ("8:4", 4, 0, [("begin", 2), ("end", 4)]),
        ("10:10", 1, 0, [("begin", 10), ("end", 20)]),
        ("2:10", 1, 8, [("begin", 0), ("end", 5)]),
        ("2:3", 1, 8, []),
        ("", 1, 0, []),
    ],
)
def test_a_trace_holds_the_wanted_steps_until_their_results_are_there(
    tiny, traces, tmp_path, wanted, size, start, when
):
    for _ in profile.traced(calls(size, 20, start), tiny(profile=wanted), tmp_path, nullcontext):
        traces.made += 1
    assert traces.when == when


def test_a_trace_ends_with_a_run_that_stops_and_is_missed_if_there_is_none(tiny, traces, tmp_path, caplog):
    stopped = profile.traced(calls(1, 20), tiny(profile="0:9"), tmp_path, nullcontext)
    next(stopped)
    stopped.close()
    assert [what for what, _ in traces.when] == ["begin", "end"]
    list(profile.traced(calls(1, 20, 8), tiny(profile="2:3"), tmp_path, nullcontext))
    assert caplog.messages == ["config.profile: there is no trace, as no step from 2 on was made"]


def test_a_profiler_that_fails_does_not_stop_training(tiny, tmp_path, monkeypatch, caplog):
    def busy(*_):
        raise RuntimeError("Profile has already been started")

    monkeypatch.setattr(jax.profiler, "start_trace", busy)
    made = list(profile.traced(calls(1, 9), tiny(profile="2:3"), tmp_path, nullcontext))
    assert len(made) == 9
    assert caplog.messages == ["config.profile: there is no trace (Profile has already been started)"]


@pytest.mark.parametrize("text", ["5", "5:", ":5", "5:0", "a:b", "-1:5", "1:5:2", "1.5:2", " 1:2", "1:2\n"])
def test_what_is_no_range_of_steps_is_refused(text):
    with pytest.raises(UserError, match=r"config\.profile: found .* expected '', or START:STEPS"):
        check_value("profile", {"profile": text})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (("--config.profile=15:10", "--config.num_steps=20"), "the steps up to 25, expected at most num_steps (20)"),
        (("--config.logger=wandb",), "config.logger: found 'wandb', which is not installed; pip install wandb"),
        (("--config.logger=trackio",), "pip install trackio"),
        (("--config.logger=mlflow",), "expected one of '', 'wandb', 'trackio'"),
    ],
)
def test_what_cannot_be_logged_is_told_before_anything_is_written(fields, told, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if not installed
    monkeypatch.setitem(sys.modules, "trackio", ModuleType("trackio"))  # a folder of that name
    done = call("train", *SMALL, *fields, f"--workdir={tmp_path}/run")
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_resumed_run_is_the_same_run_of_the_logger(name, tiny, tmp_path, package, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    logger, config = package(name), tiny(logger=name)
    for workdir in ("a", "a", "b"):
        (tmp_path / workdir).mkdir(exist_ok=True)
        tracker = trackers.Tracker(config, tmp_path / workdir)
        tracker.write(4, {"step": 4, "d_loss": 1.0})
        tracker.close()
    runs = [(settings["project"], settings.get("id"), settings["name"]) for (settings,) in logger.of("init")]
    assert runs[0] == runs[1] != runs[2]
    assert {settings["resume"] for (settings,) in logger.of("init")} == {"allow"}
    logged = ({"loss/d_loss": 1.0, "step": 4}, None) if name == "wandb" else ({"loss/d_loss": 1.0}, 4)
    assert logger.of("log") == [logged] * 3
    (tmp_path / "a" / "logger.json").write_text("{")
    trackers.Tracker(config, tmp_path / "a")
    assert logger.of("init")[-1][0]["project"] == "dcgan_jax"


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_a_logger_that_fails_is_told_once_and_left_alone(fails, tiny, tmp_path, package, caplog):
    logger = package("wandb", fails=(fails,))
    tracker = trackers.Tracker(tiny(logger="wandb"), tmp_path)
    for step in (1, 2):
        tracker.write(step, {"step": step, "d_loss": 1.0})
        tracker.show("samples", Image.new("L", (2, 2)), step)
    tracker.close()
    tracker.close()
    assert caplog.messages == ["config.logger: wandb failed (no network); training goes on without it"]
    assert len(logger.of(fails)) == 1


def test_without_a_logger_nothing_is_written(tiny, tmp_path):
    tracker = trackers.Tracker(tiny(), tmp_path)
    tracker.write(1, {"step": 1, "d_loss": 1.0})
    tracker.close()
    assert list(tmp_path.iterdir()) == []
