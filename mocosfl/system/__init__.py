"""Files, errors, logs, addresses, device, randomness, units and facts in exported files.

Imports nothing of ours.
"""
