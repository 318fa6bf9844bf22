"""Files, errors, logs, addresses, the device, randomness and units; imports nothing of ours."""
