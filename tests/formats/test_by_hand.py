"""Formats at small widths, written out: ranges, scales, names and words that no law of all formats pins down."""

import pytest
import torch

from qtrain.formats.fixed import FixedTensor
from qtrain.formats.minifloat import Minifloat
from qtrain.formats.noise import Stream, noise, signed_word
from qtrain.formats.registry import by_name
from qtrain.formats.scaled import ScaledInteger


@pytest.mark.parametrize(("bits", "top"), [(2, 1), (3, 3), (8, 127), (16, 32767)])
def test_symmetric_codes_reach_as_far_down_as_up(bits, top):
    fmt = ScaledInteger(bits)
    assert fmt.codes_range == (-top, top)
    assert ScaledInteger(bits, affine=True).codes_range == (0, 2 * top + 1)
    low, high = fmt.limits((torch.tensor(0.5), torch.tensor(0.0)))
    assert (float(low), float(high)) == (-top / 2, top / 2)


def test_a_symmetric_scale_by_hand():
    """3 bits, codes -3 .. 3, largest magnitude 6: a scale of 2, so that -6, 1.5, 0.9 become -3, 1, 0 times 2."""
    x = torch.tensor([-6.0, 1.5, 0.9])
    step, zero = ScaledInteger(3).scale_for(x)
    assert (float(step), float(zero)) == (2.0, 0.0)
    assert ScaledInteger(3).quantize(x).tolist() == [-6.0, 2.0, 0.0]


def test_an_affine_scale_by_hand():
    """2 bits, codes 0 .. 3 over -1 .. 2: a scale of 1 with 0 at code 1; 1.6 is nearest to 2."""
    x = torch.tensor([-1.0, 2.0, 1.6, 0.0])
    step, zero = ScaledInteger(2, affine=True).scale_for(x)
    assert (float(step), float(zero)) == (1.0, 1.0)
    assert ScaledInteger(2, affine=True).quantize(x).tolist() == [-1.0, 2.0, 2.0, 0.0]


@pytest.mark.parametrize("affine", [False, True])
def test_zeros_have_the_scale_one(affine):
    step, zero = ScaledInteger(4, affine).scale_for(torch.zeros(3))
    assert (float(step), float(zero)) == (1.0, 0.0)


@pytest.mark.parametrize(("mantissa_bits", "largest"), [(1, 256.0), (2, 384.0), (3, 448.0)])
def test_the_all_ones_mantissa_of_a_format_without_infinities_is_its_nan(mantissa_bits, largest):
    """4 exponent bits: 2^8 times 1, 1.5 and 1.75 (E4M3's 448), one step below 1.5, 1.75 and 1.875."""
    assert Minifloat(4, mantissa_bits, "fn").max_value == largest


def test_a_minifloat_is_named_by_exponent_then_mantissa():
    fmt = by_name("e3m4")
    assert (fmt.exponent_bits, fmt.mantissa_bits) == (3, 4)


@pytest.mark.parametrize("word", [0, 1, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_word_as_twos_complement(word):
    assert signed_word(word) == int.from_bytes(word.to_bytes(4, "little"), "little", signed=True)


def test_noise_lies_in_memory_as_what_it_is_compared_with():
    like = torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert noise(like.shape, Stream(1, 2, 3), like).is_contiguous(memory_format=torch.channels_last)


def test_codes_are_multiples_of_the_step():
    """2^-3 = 0.125: 0.5 is 4 of them."""
    assert FixedTensor(torch.tensor([0.5, -0.125]), -3).codes().tolist() == [4.0, -1.0]
    with pytest.raises(ValueError, match="float"):
        FixedTensor(torch.tensor([0.5])).codes()
