"""The notebook runs as it stands, on a small run."""

import nbformat
from conftest import ROOT
from nbclient import NotebookClient


def test_quickstart_runs(straight_run, monkeypatch):
    monkeypatch.setenv("DCGAN_WORKDIR", str(straight_run))
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "step 40" in text
    assert "ema/params/conv_0/kernel" in text
