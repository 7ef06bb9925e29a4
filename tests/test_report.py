"""The page that shows a run: what it says, what it escapes, and that no folder, however odd, ends in a traceback."""

import json
import logging
import math
import shlex
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import SMALL, call, call_command
from PIL import Image

from dcgan_jax import config as configuration
from dcgan_jax.fields import FIELDS, flatten
from dcgan_jax.page import charts, compression, document, make, record, settings, thinning
from dcgan_jax.runtime.errors import UserError

AT_END = make.at_end  # before conftest replaces it
ODD = "a <b>run<&'\" ünï"


class Page(HTMLParser):
    """A page's tags with their attributes, its text, and the JSON in it."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words, self._inside = [], [], ""
        self.json = ""
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())
        self.content = json.loads(self.json)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = dict(attrs).get("id", tag)

    def handle_endtag(self, tag):
        self._inside = "" if tag in ("script", "style") else self._inside

    def handle_data(self, data):
        if self._inside == "content":
            self.json += data
        elif not self._inside:
            self.words.append(data)

    def names(self):
        return {tag for tag, _ in self.tags}

    def curves(self):
        """The curves of all charts by name."""
        return {trace["name"]: trace for chart in self.content["charts"] for trace in chart["data"]}


def line(step, **values):
    return {
        "step": step,
        "d_loss": 1.0,
        "g_loss": 2.0,
        "spread": 0.9,
        "collapsed": 0.0,
        "images_per_sec": 100.0,
    } | values


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def write_run(folder, lines, **fields):
    """A run's folder of 10 grids, without checkpoints."""
    config = configuration.for_data_set("digits")
    config.update(fields)
    (folder / "samples").mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    write_lines(folder / "metrics.jsonl", lines)
    for step in range(10):
        Image.new("L", (34, 34), 20 * step).save(folder / "samples" / f"step_{step:08d}.png")
    Image.new("L", (34, 34), 255).save(folder / "samples" / "reals.png")
    return folder


@pytest.fixture
def run(tmp_path):
    """A run with an odd name and all that can happen to one, but for checkpoints."""
    own = {"own </script><script>alert(1)</script>": 1.0}
    lines = [
        line(step, collapsed=float(step in (3, 4)), quality=abs(step - 6) + 1.0, epoch=step / 2) for step in range(1, 9)
    ]
    lines[4] |= own | {"d_loss": math.nan}
    folder = write_run(tmp_path / ODD, lines, num_steps=8)
    write_lines(
        folder / "collapsed" / "5" / "metrics.jsonl", [*lines[:2], *(line(step, d_loss=9.0) for step in (3, 4, 5))]
    )
    measure = {"metric": "fid10k_train", "features": "inception", "standard_error": 0.5}
    write_lines(folder / "evaluation.jsonl", [measure | {"step": step, "value": 30.0 - step} for step in (2, 4)])
    (folder / "damaged" / "6").mkdir(parents=True)
    return folder


def page_of(*workdirs):
    return Page(make.page(make.records(workdirs)))


def test_the_page_says_how_the_run_went(run):
    page = page_of(run)
    for text in (
        "steps 8 of 8",
        "epochs 4",
        "best step 6 (quality 1; its checkpoint is not there)",
        "alarms steps 3 to 4",
        "rollbacks at step 5, back to step 2 (collapsed/5)",
        "damaged checkpoints 6",
        "images a second 100 (median)",
        "Values in metrics.jsonl that are not finite, gaps in the curves: 1.",
        "There is no walk between z",
        "python launch/train.py --config=configs/digits.py --config.num_steps=8",
    ):
        assert text in page.text
    curves = page.curves()
    assert {"d_loss", "g_loss", "quality", "spread", "images_per_sec", "fid10k_train (inception)"} < curves.keys()
    assert curves["d_loss"]["y"] == [1, 1, 1, 1, None, 1, 1, 1]
    assert curves["d_loss, given up (collapsed/5)"]["x"] == [3, 4, 5]
    assert curves["fid10k_train (inception)"]["error_y"]["array"] == [0.5, 0.5]
    marks = [(mark["text"], mark["x"]) for mark in page.content["charts"][0]["layout"]["annotations"]]
    assert marks == [("best", 6), ("alarm", 3), ("rollback", 5)]
    looks = [(trace["line"]["dash"], trace["marker"]["symbol"]) for trace in page.content["charts"][0]["data"][::2]]
    assert len(set(looks)) == len(looks) == 2, "told apart by the colour alone"
    assert page.content["runs"][0]["steps"] == list(range(10))


def test_all_texts_are_escaped_and_nothing_is_fetched(run):
    text = make.page(make.records([run]))
    page = Page(text)
    assert page.text.count(ODD) >= 1
    assert "b" not in page.names()
    assert sum(tag == "script" for tag, _ in page.tags) == 3
    assert any("alert(1)" in name for name in page.curves())
    assert all("<" not in name for name in page.curves()), "Plotly takes some tags of HTML in names"
    addresses = [
        attributes.get(name, "") for _, attributes in page.tags for name in ("src", "href", "srcset", "action")
    ]
    assert {address.partition(":")[0] for address in addresses if address and address[0] != "#"} == {"data"}
    (policy,) = (attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:")
    assert str(run.parent) not in text, "a path of this machine"


def test_all_that_acts_or_shows_has_a_name(run):
    page = page_of(run)
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"]
        if tag in ("button", "canvas") or (tag == "input" and attributes["type"] == "range"):
            assert attributes["aria-label"]
        if tag == "table":
            assert page.tags[page.tags.index((tag, attributes)) - 1][1]["aria-label"], "it can be scrolled by keys"


def test_figures_are_what_plotly_takes(run):
    from plotly.graph_objects import Figure

    charts = page_of(run).content["charts"]
    assert len(charts) > 5
    for figure in charts:
        assert Figure(figure).data, "Plotly raises ValueError for what it does not know"


def test_several_runs_lie_over_one_another(run, tmp_path):
    other = write_run(tmp_path / "other" / ODD, [line(step, d_loss=3.0) for step in (1, 2)], width=99, num_steps=8)
    page = page_of(run, other)
    named = [trace["name"] for trace in page.content["charts"][0]["data"]]
    assert [name.partition(":")[0] for name in named] == ["1", "1", "2"]
    assert page.content["runs"][1]["name"] == f"other/{ODD}"
    assert "width 32 99" in page.text
    assert "num_steps 8 8" not in page.text


def test_a_command_gives_the_configuration_of_the_run():
    for name, recipe, changes in (
        ("digits", "default", {}),
        ("mnist_conditional", "dense", {"num_classes": 7}),
        ("cifar10", "paper", {"features": (8, 16), "strides": (), "latent_dim": 5, "data.flip": True, "r1": 0.5}),
    ):
        values = flatten(configuration.validate(configuration.for_data_set(name, recipe)).to_dict()) | changes
        _, script, start, *fields = shlex.split(settings.command(values))
        file, _, own = start.removeprefix("--config=configs/").partition(".py")
        assert (script, own) == ("launch/train.py", "" if recipe == "default" else f":{recipe}")
        found = flatten(configuration.validate(configuration.for_data_set(file, own[1:] or "default")).to_dict())
        given = dict(field.removeprefix("--config.").split("=", 1) for field in fields)
        for key, text in given.items():
            default = FIELDS[key].default
            kind = type(default) if not isinstance(default, bool) else lambda text: text == "True"
            found[key] = tuple(map(int, filter(None, text.split(",")))) if isinstance(default, tuple) else kind(text)
        assert found == values
        assert not changes or given.keys() <= changes.keys()
    assert settings.command(values | {"recipe": "mine"}) is None


def test_paths_of_a_machine_lose_what_is_of_the_machine():
    assert settings.shown("/home/me/faces.zip") == ".../faces.zip"
    assert settings.shown("~/faces/") == ".../faces"
    assert settings.shown("data/faces") == "data/faces"


def test_a_long_curve_keeps_its_ends_and_its_spikes():
    values = np.zeros(100_000)
    values[[777, 50_001]] = 5, -5
    values[123] = math.nan
    chosen = thinning.points(values, 2000)
    assert len(chosen) <= 2000
    assert {0, 777, 50_001, 99_999} <= set(chosen)
    assert (np.diff(chosen) > 0).all()
    assert list(thinning.points(values[:5], 5)) == [0, 1, 2, 3, 4]
    assert len(thinning.points(np.full(100, math.nan), 10)) <= 10


def test_a_long_timeline_keeps_its_ends_and_the_best():
    chosen = thinning.evenly(list(range(601)), 40, {7})
    assert (len(chosen), chosen[0], chosen[-1]) == (40, 0, 600)
    assert 7 in chosen
    assert max(np.diff(chosen)) <= 32
    assert thinning.evenly([1, 2, 3], 3, {2}) == [1, 2, 3]


def test_pictures_fit_in_what_they_may_take():
    noise = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (96, 64, 3), np.uint8)) for i in range(3)]
    files = compression.fitting(noise, 8000)
    assert sum(map(len, files)) <= 8000 < sum(map(len, compression.fitting(noise, 10**6)))
    assert compression.address(files[0]).startswith("data:image/webp;base64,")


def test_the_file_stays_below_8_mb_however_long_the_runs(run):
    names = [*(name for _, group, _ in charts.GROUPS for name in group), *map(str, range(charts.OTHERS + 1))]
    lines = [{"step": step} | dict.fromkeys(names, step * math.pi * 1e-09) for step in range(2500)]
    one = make.records([run])[0]._replace(lines=lines)
    for runs in ([one], [one] * make.MOST_RUNS):
        assert len(make.page(runs)) + (make.PICTURES + make.WALKS) * 4 / 3 < 8e6  # besides tiny pictures
        runs[0].notes.clear()


def test_what_cannot_be_read_is_told_on_the_page(run):
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 9, "d_lo\n\xff\xfe\n[1]\n{"step": "9"}\n{"step": 9, "d_loss": "x"}\n' + b"[" * 100_000)
    (run / "samples" / "step_00000003.png").write_bytes(b"no picture")
    with (run / "evaluation.jsonl").open("a") as file:
        file.write('broken\n{"metric": [], "features": 1, "step": "a", "value": NaN}\n')
    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(values | {"width": "wide", "of_an_older_version": 1}))
    page = page_of(run)
    assert "5 of 14 lines of metrics.jsonl are damaged and left out" in page.text
    assert "samples/step_00000003.png cannot be read" in page.text
    assert "config.width: found 'wide'" in page.text
    assert page.content["runs"][0]["steps"] == [0, 1, 2, *range(4, 10)]


def test_a_run_of_which_little_is_left_has_a_page(tmp_path):
    workdir = write_run(tmp_path / "run", [])
    for name in ("samples", "metrics.jsonl"):
        (workdir / name).rename(tmp_path / f"no_{name}")
    (workdir / "samples").mkdir()
    (workdir / "metrics.jsonl").mkdir()
    page = page_of(workdir)
    assert page.content["charts"] == []
    for text in ("There are no grids of samples", "nothing was trained yet", "steps 0 of 3,000 (not finished)"):
        assert text in page.text


@pytest.mark.parametrize("name", ["missing", "empty", "foreign", "file", "weights", "damaged"])
def test_a_folder_that_holds_no_run_is_one_line(name, tmp_path):
    place = tmp_path / name
    if name == "file":
        place.write_text("")
    elif name != "missing":
        place.mkdir()
    if name in ("foreign", "damaged"):
        (place / "config.json").write_text('{"model": 1}' if name == "foreign" else "{")
    if name == "weights":
        (place / "generator.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    done = call("report", f"--workdir={place}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: workdir: {str(place)!r} ")
    assert "expected the folder of a run, such as runs/digits" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_overwritten_but_a_page_of_ours(run, tmp_path):
    out, again = tmp_path / "new" / "page.html", run / "report.html"
    assert call("report", f"--workdir={run}", f"--out={out}").stdout == f"{out}\n"
    assert document.is_ours(out)
    refused = call("report", f"--workdir={run}", f"--out={out}")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert f"--out: {str(out)!r} exists, expected a new file" in refused.stderr
    for _ in range(2):
        assert call_command("report", f"--workdir={run}").stdout == f"{again}\n"
    long = call("report", f"--workdir={run}", f"--out={tmp_path}/{'x' * 250}")  # too long with what a partial file adds
    assert (long.returncode, long.stderr.count("\n")) == (2, 1)
    assert "cannot be written (File name too long)" in long.stderr
    again.write_text("mine")
    refused = call("report", f"--workdir={run}")
    assert refused.returncode == 2
    assert again.read_text() == "mine"


def test_a_comparison_never_takes_the_place_of_a_page(run, tmp_path):
    other = write_run(tmp_path / "other", [line(1)])
    flags = (f"--workdir={run}", f"--workdir={other}")
    assert [call("report", *flags).stdout for _ in range(2)] == [
        f"{run}/comparison.html\n",
        f"{run}/comparison2.html\n",
    ]
    twice = call("report", f"--workdir={run}", f"--workdir={run}/../{ODD}")
    assert (twice.returncode, twice.stderr.count("\n")) == (2, 1)
    assert "the same run twice" in twice.stderr
    assert call("report", *[f"--workdir={tmp_path}/{i}" for i in range(9)]).returncode == 2


@pytest.mark.parametrize("package", ["plotly", "jinja2"])
def test_without_the_extra_it_is_one_line_before_any_work(package, run, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(record, "read", lambda workdir: pytest.fail("it worked"))
    done = call("report", f"--workdir={run}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"found no package {package}" in done.stderr
    assert "pip install plotly jinja2" in done.stderr


def test_training_ends_with_a_page_and_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "at_end", AT_END)
    workdir = tmp_path / "run"
    done = call("train", *SMALL, "--config.num_steps=2", f"--workdir={workdir}")
    assert done.stderr.endswith(f"launch/sample.py makes images; report: {workdir}/report.html\n"), done.stderr
    page = Page((workdir / "report.html").read_text())
    assert "steps 2 of 2" in page.text
    assert page.content["runs"][0]["walk"]["step"] == 2
    (workdir / "report.html").write_text("mine")
    more = call("train", *SMALL, "--config.num_steps=3", f"--workdir={workdir}")
    assert f"{workdir}/report.html is another file, and stays; python launch/report.py" in more.stderr
    assert more.stderr.endswith("makes images\n")
    assert (workdir / "report.html").read_text() == "mine"


def test_training_never_fails_for_its_page(run, monkeypatch, caplog):
    def told():
        caplog.clear()
        with caplog.at_level(logging.INFO, "dcgan_jax"):
            assert AT_END(run) == ""
        (message,) = caplog.messages
        return message

    with monkeypatch.context() as patched:
        patched.setattr(make, "page", lambda runs: 1 / 0)
        assert told().startswith("no report of this run (ZeroDivisionError: division by zero); python launch/report.py")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "plotly", None)
        assert told() == (
            "no report of this run: it needs pip install plotly jinja2, then "
            f"python launch/report.py --workdir={run} makes it"
        )
    assert not (run / "report.html").exists()
    assert AT_END(run) == f"; report: {run}/report.html"


def test_the_walk_is_of_the_best_and_a_damaged_checkpoint_only_costs_the_walk(straight_run, tmp_path):
    run = shutil.copytree(straight_run, tmp_path / "run")
    page = page_of(run)
    assert page.content["runs"][0]["walk"]["step"] == 40
    assert "scikit-learn" in page.text
    for meta in (run / "checkpoints").glob("*/state/_METADATA"):
        meta.unlink()
    page = page_of(run)
    assert page.content["runs"][0]["walk"] is None
    assert "The checkpoint for the walk cannot be used" in page.text
    assert "scikit-learn" in page.text


def test_a_name_that_is_no_text_is_shown_as_far_as_it_is(run, tmp_path):
    odd = run.rename(tmp_path / "caf\udce9")
    assert make.page(make.records([odd])).encode().count(b"caf?") > 1


def test_names_of_runs_differ(tmp_path):
    for folder in ("a/run", "b/run", "c/a/run"):
        write_run(tmp_path / folder, [])
    folders = [tmp_path / folder for folder in ("a/run", "b/run", "c/a/run")]
    assert [each.name for each in make.records(folders)] == ["a/run (1)", "b/run", "a/run (3)"]
    with pytest.raises(UserError, match="does not exist"):
        make.records([tmp_path / "none"])
