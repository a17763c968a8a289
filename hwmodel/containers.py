"""How many bits a value of a given width takes in memory."""

from __future__ import annotations


def container_bits(bits: int) -> int:
    """Bits stored per value: packed 2- and 4-bit fields, then bytes, half words and words, as libraries store them."""
    for size in (2, 4, 8, 16, 32):
        if bits <= size:
            return size
    return 64
