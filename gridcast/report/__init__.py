"""The report of a run: one HTML file with words, charts and maps."""
