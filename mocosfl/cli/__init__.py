"""What the commands share: the course of a run, sweeps, and what became of their jobs."""
