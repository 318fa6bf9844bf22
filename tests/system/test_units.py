"""Bytes in words."""

from mocosfl.system.units import megabytes


def test_megabytes_are_of_two_to_the_twentieth_bytes():
    assert megabytes(3 * 2**20) == "3.00 MB"
