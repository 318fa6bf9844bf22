"""Files, errors, logs, the device, randomness and units; imports nothing of ours."""
