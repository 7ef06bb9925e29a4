"""The page that shows a run, or several over one another: report.html, which opens without a network."""
