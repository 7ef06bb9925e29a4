"""The explorer computes what it says, its commands make the same pictures, and it refuses with a reason."""

import json
import math
import os
import re
import shlex
import shutil
import socket
import sys
import uuid
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import call, free_port
from PIL import Image

from dcgan_jax import inference
from dcgan_jax.explore import drawing, limits, parameters, results, sheet
from dcgan_jax.explore.drawing import Corner
from dcgan_jax.explore.explorer import Explorer, View
from dcgan_jax.interpret import z_file
from dcgan_jax.interpret.forget import Box
from dcgan_jax.runtime.errors import UserError

NONE = {"A": [], "B": [], "C": []}


@pytest.fixture(scope="module")
def explorer(straight_run):
    return Explorer(str(straight_run))


@pytest.fixture
def view(explorer):
    return explorer.view("40", 3, None, 12)


def pixels(file):
    return np.asarray(Image.open(file))


@pytest.mark.parametrize(
    ("check", "values", "told"),
    [
        (
            lambda value: parameters.whole(value, "seed", 0, 9),
            (math.nan, math.inf, 10, -1, 1.5, True, None, "3", [3], {"a": 1}, 10**400),
            "^seed: found .*, expected a whole number from 0 to 9$",
        ),
        (
            lambda value: parameters.number(value, "scale", -3, 3),
            (math.nan, -math.inf, 3.1, False, None, "1", [], -(10**400)),
            "^scale: found .*, expected a number from -3 to 3$",
        ),
        (
            lambda value: parameters.numbers(value, "A", 9, 3),
            ("9", "-1", "x", "1 2", "1,2,3,4", "\u0663", "1" * 9999, 3, [1], "1.0", "0x1"),
            "^A: found ",
        ),
        (
            lambda value: parameters.boxes(value, "boxes"),
            ("1", "0: 1,2,3", "0: 1,2,3,4,5", "a: 1,2,3,4", "0: 1,2,3,-4", "0: 1,1,2,2\n" * 33, 4),
            "^boxes: found ",
        ),
        (
            lambda value: parameters.place(value, "click"),
            (None, [1], [1, 2, 3], [math.nan, 1], "12", [1, -2], {"x": 1, "y": 2}),
            "^click: found ",
        ),
        (
            lambda value: parameters.choice(value, "way", ("line", "arc")),
            (["line"], None, "l", {}),
            "expected one of line, arc",
        ),
    ],
    ids=["whole", "number", "numbers", "boxes", "place", "choice"],
)
def test_whatever_is_sent_is_refused_with_a_short_reason(check, values, told):
    for found in values:
        with pytest.raises(UserError, match=told) as raised:
            check(found)
        assert len(str(raised.value)) < 250


def test_what_is_right_is_read():
    assert parameters.whole(3.0, "seed", 0, 9) == 3
    assert parameters.numbers(" 3, 17 ,", "A", 18, 2) == [3, 17]
    assert parameters.numbers(None, "A", 18, 2) == []
    boxes = [Box(3, 0, 1, 20, 21), Box(0, 4, 5, 6, 7)]
    assert parameters.boxes(drawing.as_text(boxes), "boxes") == boxes
    assert parameters.place([3.7, 5], "click") == (3, 5)


@pytest.mark.parametrize(("height", "width", "count"), [(16, 16, 7), (8, 24, 4), (100, 60, 1)])
def test_a_click_finds_the_pixel_that_is_drawn_there(height, width, count):
    images = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)
    drawn = np.asarray(sheet.draw(images, NONE))
    hits = 0
    for y in range(0, drawn.shape[0], 5):
        for x in range(0, drawn.shape[1], 5):
            hit = sheet.pixel_at((x, y), count, (height, width))
            hits += hit is not None
            expected = (255, 255, 255) if hit is None else images[hit]
            np.testing.assert_array_equal(drawn[y, x], expected)
    assert hits


def test_samples_in_trays_are_framed():
    images = np.zeros((4, 16, 16, 1), np.uint8)
    drawn = np.asarray(sheet.draw(images, {"A": [1], "B": [1, 2], "C": []}))
    seen = {letter: (drawn == colour).all(-1) for letter, colour in sheet.COLOURS.items()}
    half = drawn.shape[0] // 2
    assert seen["A"][:half, half:].any()
    assert not seen["A"][half:].any()
    assert seen["B"][:half, half:].any()
    assert seen["B"][half:, :half].any()
    assert not seen["C"].any()


def test_two_clicks_are_a_box():
    assert drawing.between(Corner(3, 9, 2), Corner(3, 4, 7)) == (3, 4, 2, 10, 8)
    images = np.zeros((9, 16, 16, 1), np.uint8)
    drawn = np.asarray(drawing.canvas(images, [5, 8], [Box(8, 2, 2, 9, 9)], Corner(5, 7, 7)))
    for number, (row, column), white in ((0, (7, 7), True), (0, (2, 2), False), (1, (2, 2), True), (1, (5, 5), False)):
        x = sheet.GAP + number * (160 + sheet.GAP) + column * 10 + 5
        y = sheet.GAP + row * 10 + 5
        assert drawing.corner_at((x, y), [5, 8], (16, 16)) == (5 + 3 * number, row, column)
        assert (drawn[y, x] == 255).all() == white


def test_old_results_go(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "KEPT", 2)
    folders = results.Results(tmp_path)
    made = [folders.new() for _ in range(4)]
    assert sorted(tmp_path.iterdir()) == sorted(made[2:])


RESULTS = {
    "samples": lambda e, v, folder: e.first(v, folder),
    "walk": lambda e, v, folder: e.walk(v, NONE | {"A": [1], "B": [4, 5]}, "arc", 5, folder),
    "arithmetic": lambda e, v, folder: e.arithmetic(v, {"A": [0, 1, 2], "B": [3], "C": [11]}, folder),
    "direction": lambda e, v, folder: e.direction(v, {"A": [0], "B": [3], "C": [7, 11]}, -0.5, folder),
    "forget": lambda e, v, folder: e.forget(v, "3: 1,1,9,9\n11: 0,0,8,16", folder),
    "neighbours": lambda e, v, folder: e.neighbours(v, NONE | {"A": [2, 9]}, folder),
    "checkpoints": lambda e, v, folder: e.checkpoints(v, NONE | {"A": [6, 2]}, "20, 40", folder),
}


@pytest.mark.parametrize("name", RESULTS)
def test_the_command_makes_the_same_picture(explorer, view, tmp_path, name):
    folder = tmp_path / "kept"
    folder.mkdir()
    result = RESULTS[name](explorer, view, folder)
    pictures = [file for file, _ in result.shown if file.suffix == ".png"]
    assert {file for file, _ in result.shown} <= set(result.files) == set(folder.iterdir())
    for command, picture in zip(result.command.splitlines(), pictures, strict=True):
        python, script, *arguments = shlex.split(command)
        assert python == "python"
        here = [re.sub("^--(z|boxes|out)=", rf"--\1={folder}/", argument) for argument in arguments]
        done = call(Path(script).stem, *here)
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(pixels(done.stdout.strip()), pixels(picture))


def test_a_walk_is_animated_there_and_back_and_its_z_kept(explorer, view, tmp_path):
    result = RESULTS["walk"](explorer, view, tmp_path)
    gif = Image.open(next(file for file in result.files if file.suffix == ".gif"))
    assert gif.n_frames == 8
    z, labels = z_file.read(str(next(tmp_path.glob("*.npz"))), explorer.gan(40), "--z")
    assert labels is None
    np.testing.assert_allclose(z[0], explorer.samples(view).z([1])[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(z[-1], explorer.samples(view).z([4, 5]).mean(0), rtol=0, atol=1e-6)


def test_arithmetic_and_directions_are_of_the_means(explorer, view, tmp_path):
    def z_of(name):
        folder = tmp_path / name
        folder.mkdir()
        RESULTS[name](explorer, view, folder)
        return z_file.read(str(next(folder.glob("*.npz"))), explorer.gan(40), "--z")[0]

    z = explorer.samples(view).z(range(12))
    a, b, c = z[:3].mean(0), z[3], z[11]
    np.testing.assert_allclose(z_of("arithmetic"), np.stack([a, b, c, a - b + c]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(z_of("direction"), z[[7, 11]] - 0.5 * (z[0] - z[3]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda e, v: e.view("30", 0, None, 4) and e.gan(30), "no checkpoint of step 30, expected one of 20, 40"),
        (lambda e, v: e.view("../../etc", 0, None, 4), "checkpoint: found '../../etc'"),
        (lambda e, v: e.view(40, 0, None, 101), "samples: found 101, expected a whole number from 1 to 100"),
        (lambda e, v: e.trays(v, A="12"), "A: found '12', expected numbers from 0 to 11"),
        (lambda e, v: e.walk(v, NONE | {"A": [1]}, "line", 4, None), "B: empty"),
        (lambda e, v: e.walk(v, NONE, "zigzag", 4, None), "way: found 'zigzag'"),
        (lambda e, v: e.walk(v, NONE, "line", 65, None), "frames: found 65"),
        (lambda e, v: e.arithmetic(v, NONE | {"A": [1], "B": [1]}, None), "C: empty"),
        (lambda e, v: e.direction(v, NONE, math.nan, None), "scale: found nan"),
        (lambda e, v: e.forget(v, "", None), "boxes: found none"),
        (lambda e, v: e.forget(v, "12: 0,0,4,4", None), "boxes: found 12"),
        (lambda e, v: e.forget(v, "0: 0,0,4,17", None), "within 16x16 pixels"),
        (lambda e, v: e.checkpoints(v, NONE | {"A": [1]}, " ", None), "steps: found none, expected some of 20, 40"),
        (lambda e, v: e.checkpoints(v, NONE | {"A": [1]}, "1," * 7, None), "steps: found 7 numbers"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(explorer, view, ask, told):
    with pytest.raises(UserError, match=re.escape(told)):
        ask(explorer, view)


def test_images_that_are_not_at_hand_are_not_prepared(tiny, tmp_path):
    from dcgan_jax.explore.training_images import TrainingImages

    config = tiny()
    config.data.update(dict(source="folder", path=str(tmp_path), prepared=str(tmp_path / "none")))
    with pytest.raises(UserError, match="training images: none are prepared in"):
        TrainingImages(config).images()
    assert not list(tmp_path.iterdir())


def test_of_a_class(tiny, tmp_path, monkeypatch):
    gan = inference.untrained(tiny(num_classes=3), 0)
    gan.classes = ("cat", "dog", "3")
    monkeypatch.setattr(inference, "load", lambda *_: gan)
    monkeypatch.setattr("dcgan_jax.run.places.steps", lambda _: [])
    explorer = Explorer("animals")
    assert (explorer.class_names(), explorer.steps()) == (["cat", "dog", "3"], [0])
    view = explorer.view("0", 0, "dog", 4)
    assert view == View(0, 0, 1, 4)
    explorer.first(view, tmp_path)
    z, labels = z_file.read(str(next(tmp_path.glob("*.npz"))), gan, "--z")
    assert labels.tolist() == [1] * 4
    np.testing.assert_array_equal(explorer.images(view), gan.sample(4, 0, np.ones(4, int)))
    for name in ("0", "bird", None, 1):
        with pytest.raises(UserError, match="class: found"):
            explorer.view("0", 0, name, 4)
    for arrays, told in (
        (dict(z=z), "holds 'z', expected z"),
        (dict(z=z, labels=labels + 2), "expected 4 from 0 to 2"),
    ):
        np.savez(tmp_path / "other.npz", **arrays)
        with pytest.raises(UserError, match=told):
            z_file.read(str(tmp_path / "other.npz"), gan, "--z")


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        (dict(z=np.zeros((2, 100), int)), "holds z of int64 (2, 100), expected z, float [N, 100], and no labels"),
        (dict(z=np.zeros((2, 7))), "holds z of float64 (2, 7)"),
        (dict(z=np.zeros((0, 100))), "(0, 100)"),
        (dict(z=np.full((2, 100), np.nan)), "not finite"),
        (dict(z=np.zeros((2, 100)), labels=np.zeros(2, int)), "holds 'z', 'labels'"),
        (dict(z=np.array([None])), "holds Python objects"),
        (None, "neither .npz nor .npy"),
    ],
)
def test_other_files_of_z_are_one_line(straight_run, tmp_path, arrays, told):
    file = tmp_path / "z.npz"
    np.savez(file, **arrays) if arrays else file.write_text("hello")
    done = call("sample", f"--workdir={straight_run}", f"--z={file}", f"--out={tmp_path / 'out.png'}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert told in done.stderr


@pytest.mark.parametrize("flag", ["--num=3", "--seed=1"])
def test_z_says_what_to_make_alone(straight_run, flag):
    done = call("sample", f"--workdir={straight_run}", "--z=z.npz", flag)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{flag.partition('=')[0]}: found" in done.stderr


def test_without_gradio_one_line_says_so(straight_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = call("explore", f"--workdir={straight_run}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: gradio: not installed, but the explorer needs it; pip install --editable '.[explore]'\n"
    )


@pytest.mark.filterwarnings("ignore")  # of Gradio and its libraries
def test_a_port_that_is_taken_is_one_line(straight_run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = call("explore", f"--workdir={straight_run}", f"--port={taken.getsockname()[1]}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: --port: found ")


@pytest.fixture(scope="module")
def address(explorer):
    """Where the explorer's page is served; its temporary files go when it ends."""
    from dcgan_jax.explore import server

    names = ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY")
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Gradio and its libraries
        for name in names:
            patched.setenv(name, "")
        with server.serving(explorer, "127.0.0.1", free_port()) as address:
            temporary = Path(os.environ["GRADIO_TEMP_DIR"])
            yield address
            assert any(temporary.iterdir())
        assert not temporary.exists()


@pytest.mark.filterwarnings("ignore")  # of Gradio and its libraries
def test_scripts_get_reasons_and_no_files(address, explorer):
    import httpx

    for name, data, told in (
        (
            "arithmetic",
            [{"path": "http://192.0.2.1/a", "meta": {"_type": "gradio.FileData"}}, "1", "2"],
            "found a file",
        ),
        ("arithmetic", [[], "1", "2"], "A: found [], expected text"),
        ("walk", ["1", "2", "", "line", math.inf], "frames: found inf, expected a whole number from 2 to 64"),
    ):
        answer = _asked(address, name, [None, *data])
        assert not answer["success"]
        assert answer["output"]["error"].startswith(told)
    for seed, told in ((-1, "seed: found -1, expected a whole number from 0"), (10**9, None)):
        answer = _asked(address, "sheet", ["40", seed, None, 4, "", "", ""])
        assert answer["success"] == (told is None)
        assert told is None or answer["output"]["error"].startswith(told)
    for place in (f"{explorer.workdir}/config.json", "/etc/passwd", "../../../etc/passwd", "pyproject.toml"):
        for route in ("gradio_api/file=", "file="):
            assert httpx.get(f"{address}{route}{place}").status_code in (403, 404)
    join = f"{address}gradio_api/queue/join"
    assert httpx.post(join, content=b"9" * (limits.MAX_BODY + 1)).status_code == 413
    assert httpx.post(join, content=iter([b"{}"])).status_code == 411
    assert httpx.post(join, content=b"{").status_code == 422


@pytest.fixture
def browser():
    """Chromium without a window, which notes all its requests."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1440,1300"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chromium
    chromium.quit()


@pytest.mark.filterwarnings("ignore")  # of Gradio and its libraries
def test_clicks_on_the_page(address, browser):
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    def find(css, said=""):
        def search(_):
            return next((e for e in browser.find_elements("css selector", css) if said in e.text), None)

        return WebDriverWait(browser, 30, ignored_exceptions=[StaleElementReferenceException]).until(search)

    def click_sample(row, column):
        step = sheet.CELL + sheet.GAP
        offset = (step * (column - 2.5), step * (row - 2.5))  # from the middle of 6x6 samples
        ActionChains(browser).move_to_element_with_offset(find("#sheet img"), *offset).click().perform()

    def wait_for(css, value):
        WebDriverWait(browser, 30).until(lambda _: find(css).get_attribute("value") == value)

    browser.get(address)
    find("#sheet img")
    for letter, (row, column) in {"A": (0, 3), "B": (2, 1)}.items():
        find(f"#tray input[value={letter}]").click()
        click_sample(row, column)
        wait_for(f"#tray-{letter} :is(input, textarea)", str(6 * row + column))
    find("button[role=tab]", "Walk").click()
    find("#do-walk").click()
    WebDriverWait(browser, 30).until(lambda _: "--z=walk_line_16_3_13_seed_0" in _value(find, "#command textarea"))
    find("button[role=tab]", "A - B + C").click()
    find("#do-arithmetic").click()
    find(".toast-body", "C: empty")
    find("button[role=tab]", "Forget").click()  # the reason does not lie over the tabs
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"]
    assert len(urls) > 10
    assert not [url for url in urls if not url.startswith((address, "data:", "blob:"))]


def _value(find, css):
    return find(css).get_attribute("value") or ""


def _asked(address, name, data):
    """What a script that joins the queue by itself is answered."""
    import httpx

    functions = {each["api_name"]: each["id"] for each in httpx.get(f"{address}config").json()["dependencies"]}
    asked = {"data": data, "fn_index": functions[name], "session_hash": uuid.uuid4().hex}
    text = json.dumps(asked)  # with numbers that are not finite, too
    json_type = {"Content-Type": "application/json"}
    httpx.post(f"{address}gradio_api/queue/join", content=text, headers=json_type).raise_for_status()
    with httpx.stream(
        "GET", f"{address}gradio_api/queue/data", params={"session_hash": asked["session_hash"]}, timeout=30
    ) as lines:
        events = (json.loads(line.removeprefix("data:")) for line in lines.iter_lines() if line)
        return next(event for event in events if event["msg"] == "process_completed")
