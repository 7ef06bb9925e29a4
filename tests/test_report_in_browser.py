"""The page that shows a run, in Chromium: it draws without errors, fits on a telephone, and obeys keys and mouse."""

import contextlib
import shutil
import time

import pytest
from test_report import ODD, line, write_run

from dcgan_jax.page import make

webdriver = pytest.importorskip("selenium.webdriver")

from selenium.common.exceptions import JavascriptException  # noqa: E402
from selenium.webdriver import ActionChains, Keys  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402

WIDTHS = (390, 1440)


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("no Chromium with its driver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.page_load_strategy = "none"  # `shown` waits; Chromium's driver now and then waits for minutes
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def file(straight_run, tmp_path_factory):
    """The page of a run with a checkpoint beside one with an odd name and none."""
    folder = tmp_path_factory.mktemp("pages")
    other = write_run(folder / ODD, [line(step, collapsed=float(step == 2)) for step in range(40)], width=7)
    page = folder / "page.html"
    page.write_text(make.page(make.records([straight_run, other])))
    return page


def shown(browser, file, width, scheme="light"):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    opening = f"?{time.monotonic()}"  # or the page from before could be taken for this one
    browser.get(file.as_uri() + opening)
    loaded = "location.search === arguments[0] && document.readyState === 'complete'"
    charts = f"return {loaded} ? document.querySelectorAll('.plot .legend').length : 0"
    soon(lambda: browser.execute_script(charts, opening) > 5)


def soon(holds):
    """Returns once this holds; fails if it has not in a minute."""
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(JavascriptException):  # while one page follows another
            if holds():
                return
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.05)


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_draws_without_errors_and_without_a_network(browser, file, width):
    grounds = set()
    for scheme in ("light", "dark"):
        shown(browser, file, width, scheme)
        assert browser.get_log("browser") == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        fetched = "return performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith('data:'))"
        assert browser.execute_script(fetched) == []
        grounds.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2
    buttons = browser.execute_script(
        "return [...document.querySelector('.modebar').querySelectorAll('[data-title]')].map(b => b.dataset.title)"
    )
    assert len(buttons) == 6, f"one of these may send the chart away: {buttons}"


def test_the_timeline_moves_by_keys_and_by_mouse(browser, file):
    shown(browser, file, 1440)
    browser.execute_script(
        "document.querySelectorAll('.timeline')[1].scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    timeline = browser.find_elements("css selector", ".timeline")[1]
    slider, picture = (timeline.find_element("css selector", name) for name in ("input", "img"))
    output = timeline.find_element("css selector", "output")
    seen = [(output.text, picture.get_attribute("src"))]
    slider.send_keys(Keys.ARROW_LEFT)
    seen.append((output.text, picture.get_attribute("src")))
    assert slider.get_attribute("aria-valuetext") == "step 8"
    slider.send_keys(Keys.HOME)
    assert picture.get_attribute("alt") == "Samples at step 0"
    ActionChains(browser).move_to_element(slider).click().perform()
    seen.append((output.text, picture.get_attribute("src")))
    assert [text for text, _ in seen] in (["step 9", "step 8", "step 4"], ["step 9", "step 8", "step 5"])
    assert len({source for _, source in seen}) == 3


def test_the_walk_plays_and_pauses(browser, file):
    shown(browser, file, 390)
    walk = browser.find_element("css selector", ".walk")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", walk)
    button, output = (walk.find_element("css selector", name) for name in ("button", "output"))
    drawn = "return document.querySelector('.walk canvas').toDataURL()"
    soon(lambda: output.text == "frame 1 of 48")
    first = browser.execute_script(drawn)
    button.click()
    assert (button.text, button.get_attribute("aria-label")) == ("Pause", "Pause the walk")
    soon(lambda: output.text != "frame 1 of 48" and browser.execute_script(drawn) != first)
    button.click()
    assert button.text == "Play"


def test_an_axis_becomes_logarithmic(browser, file):
    shown(browser, file, 390)
    box = browser.find_element("css selector", ".logarithmic")
    kind = "return document.querySelector('.plot').layout.yaxis.type"
    assert browser.execute_script(kind) == "linear"
    box.send_keys(Keys.SPACE)
    soon(lambda: browser.execute_script(kind) == "log")
    assert browser.get_log("browser") == []
