"""Measurements of speed and memory, side by side; see README.md here.

Run from the repository's root: `python -m benchmarks.step`, `.views`, `.probe`, `.startup`,
`.scale`, `.edge`, `.edge_link`. Each prints a table and writes it, with all that was measured, as
Markdown and JSON.
"""
