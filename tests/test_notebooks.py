"""What the notebooks show in the repository: outputs of a whole run, small, of no machine. nbmake runs them."""

import re

import nbformat
import pytest
from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
AGAIN = "python -m pytest --nbmake --overwrite notebooks makes the outputs again"
OF_A_MACHINE = re.compile(r"/(?:home|root|tmp|Users|content|mnt|usr|work)/|[A-Z]:\\|Traceback|Warning")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["paper_tour", "quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small(path):
    assert path.stat().st_size < 300_000, AGAIN


def test_cells_ran_in_order_and_all_but_the_first_show_something(notebook):
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), AGAIN
    assert [bool(cell.outputs) for cell in cells] == [False] + [True] * (len(cells) - 1), AGAIN
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


def test_outputs_have_no_errors_and_nothing_of_a_machine(notebook):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", AGAIN
            assert output.get("name") != "stderr", f"{output.text} ({AGAIN})"
            told = output.get("text", "") + output.get("data", {}).get("text/plain", "")
            assert not OF_A_MACHINE.search(told), told


def test_they_begin_alike(notebook):
    """An installation where there is none, versions and devices, and a run that is found or trained."""
    install, told, run = [cell for cell in notebook.cells if cell.cell_type == "code"][:3]
    assert "%pip install" in install.source
    assert all(f"{name} " in told.outputs[0].text for name in ("python", "jax", "flax", "dcgan_jax"))
    assert "JAX computes on" in told.outputs[0].text
    assert run.outputs[-1].text.startswith("runs/digits: step 3000"), "outputs are those of the README's run"
