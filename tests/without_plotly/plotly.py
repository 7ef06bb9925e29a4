"""In place of Plotly, for processes that tests launch: as if it were not installed."""

raise ImportError("no Plotly in this process, so that no run writes a page at its end", name="plotly")
