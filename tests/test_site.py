"""The documentation as a site: it builds without warnings, no link is dead, and pages made from code are the code's."""

import html.parser
import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.parse

import pytest
import yaml
from conftest import COMPILE_FAST, ROOT, SMALL, _launcher_state
from test_launchers import LAUNCHERS

import dcgan_jax

sys.path.insert(0, str(ROOT / "docs" / "hooks"))
import launchers
import rooms

DOCUMENTS = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "launch/README.md"))]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; strict, so that every warning of MkDocs is an error."""
    config = pytest.importorskip("mkdocs.config")
    pytest.importorskip("material")
    from mkdocs.commands.build import build

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        build(config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


class Page(html.parser.HTMLParser):
    """What a page links to and loads, and the names of places in it."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.names = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.names.add(attrs.get("id"))
        if attrs.get("href"):
            (self.links if tag == "a" else self.loaded).append(attrs["href"])
        if attrs.get("src"):
            self.loaded.append(attrs["src"])


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}


def test_no_link_in_the_site_is_dead(pages):
    dead = []
    for path, page in pages.items():
        for link in page.links + page.loaded:
            target, _, name = urllib.parse.unquote(link).partition("#")
            if ":" in target.partition("/")[0]:
                continue
            file = (path.parent / target).resolve() if target else path
            if not file.exists() or (name and file in pages and name not in pages[file].names | {"__skip"}):
                dead.append(f"{path.name}: {link}")
    assert not dead


def test_every_page_is_reached_from_the_first_and_nothing_is_fetched_from_elsewhere(pages, site):
    first = pages[site / "index.html"]
    reached = {(site / link.partition("#")[0]).resolve() for link in first.links if not link.startswith("http")}
    waiting = list(reached & pages.keys())
    while waiting:  # the navigation of a page shows its own section
        path = waiting.pop()
        found = {(path.parent / link.partition("#")[0]).resolve() for link in pages[path].links} & pages.keys()
        waiting += found - reached
        reached |= found
    assert pages.keys() <= reached
    assert not [link for page in pages.values() for link in page.loaded if re.match(r"(https?:)?//", link)]


def test_links_between_files_lead_to_files():
    """As they are read in a checkout, or on GitHub."""
    dead = []
    for document in DOCUMENTS:
        text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"(?:\]\(|(?:src|href)=\")([^)\"\s#]+)", text):
            if ":" not in target and not (document.parent / target).exists():
                dead.append(f"{document.name}: {target}")
    assert not dead


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launchers_page_has_its_flags(name):
    file = ROOT / "launch" / f"{name}.py"
    with _launcher_state():
        shown = launchers.markdown(file)
    defined = set(re.findall(r'flags\.DEFINE\w*\(\s*(?:cli\.StepParser\(\), )?"(\w+)"', file.read_text()))
    assert defined or name in ("train", "prepare")
    flags_shown = set(re.findall(r"^\| `--(\w+)`", shown, re.MULTILINE))
    assert defined <= flags_shown
    assert ("config" in flags_shown) == ("import configuration" in file.read_text())
    assert ("data" in flags_shown) == ("import image_sets" in file.read_text())


def test_the_pages_of_launchers_are_those_of_the_launchers():
    assert [file.stem for file in launchers.files()] == LAUNCHERS


def test_the_picture_of_the_rooms_is_that_of_the_code():
    told = "python docs/hooks/rooms.py > docs/rooms.svg"
    assert (ROOT / "docs" / "rooms.svg").read_text() == rooms.svg(), told
    levels, _ = rooms.rows()
    assert levels[0] == ["train"]


def test_the_citation_is_of_this_version_and_of_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license", "references"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == dcgan_jax.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["title"], citation["license"]) == (project["name"], project["license"])
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Radford", "Metz", "Chintala"]


def blocks(page, language):
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["questions.md", "api.md"])
def test_code_in_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for text in blocks(page, "python"):
        exec(text, names)
    assert names["gan"].step > 0


def test_worked_examples_of_a_loss_a_source_and_a_measure(tmp_path):
    """Applied to a copy of the package, they train together."""
    for folder in ("dcgan_jax", "launch", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for text in blocks("built.md", "python"):
        file, _, content = text.removeprefix("# ").partition("\n")
        (tmp_path / file).write_text(content)
    differences = "".join(blocks("built.md", "diff"))
    assert differences.count("--- a/") == 7
    subprocess.run(["git", "apply"], input=differences, text=True, cwd=tmp_path, check=True)
    done = subprocess.run(
        [
            *(sys.executable, "launch/train.py", *SMALL, f"--workdir={tmp_path}/run"),
            *("--config.loss=minimax", "--config.data.source=discs", "--config.num_steps=1"),
            *("--config.eval_every=1", "--config.eval_metrics=sliced50_train"),
            *("--config.eval_features=own_features:blocks", f"--config.data.prepared={tmp_path}/prepared"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT / 'tests'}", "XLA_FLAGS": " ".join(COMPILE_FAST)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "step 1: sliced50_train" in done.stderr
    assert "preparing 1000 images" in done.stderr
