"""Bytes in words, in the papers' unit."""

MEGABYTE = 2**20


def megabytes(num_bytes: float) -> str:
    """Format bytes as MB of 2^20 bytes."""
    return f"{num_bytes / MEGABYTE:,.2f} MB"
