"""Where the curves of a run go: `metrics.csv` and Weights & Biases."""
