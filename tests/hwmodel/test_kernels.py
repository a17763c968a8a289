"""Op -> kernels: units derived by hand for a 3x3 convolution 4 -> 6 channels on 8x8, batch 2."""

from __future__ import annotations

import dataclasses

import pytest

from hwmodel.errors import HwmodelError
from hwmodel.kernels import form, works
from hwmodel.operations import KINDS, NORM_KINDS, Layer, Op, Widths
from tests.hwmodel.ops import conv, linear

LAYER = conv(4, 6, 8, activation="relu")
BATCH = 2
PIXELS = BATCH * 8 * 8
PRODUCTS = PIXELS * (4 * 3 * 3) * 6  # P x R x K


def units(op: Op) -> dict[str, float]:
    """Units of work by kernel; kernels of one name are summed."""
    found: dict[str, float] = {}
    for work in works(op):
        found[work.kernel] = found.get(work.kernel, 0) + work.units
    return found


def op(phase: str, layer: Layer = LAYER, **more: object) -> Op:
    fields = {"widths": Widths(), "payer": "main", "batch": 0 if phase == "update" else BATCH,
              "kept_channels": layer.out_channels, "parameter_terms": 2 if phase == "update" else 0} | more  # fmt: skip
    return Op(layer=layer, phase=phase, **fields)  # type: ignore[arg-type]


def test_forward() -> None:
    n_out = PIXELS * 6
    n_parameters = 6 * 4 * 9 + 6  # the master's bits become codes anew each step, biases too
    assert units(op("forward")) == {
        "requantize_weight": n_parameters,
        "im2col": PIXELS * 4 * 9,
        "conv": PRODUCTS,
        "bias": n_out,
        "requantize": n_out,
        "activation": n_out,
    }


def test_input_error() -> None:
    n_in = BATCH * 4 * 8 * 8
    assert units(op("error")) == {
        "mask": PIXELS * 6,
        "rotate": 6 * 4 * 9,
        "im2col": BATCH * 64 * 6 * 9,  # patches of the error map: K FY FX for each input pixel
        "conv_error": PRODUCTS,
        "requantize": n_in,
        "stochastic_rounding": n_in,
    }


def test_weight_gradient() -> None:
    n_weights = 6 * 4 * 9
    assert units(op("gradient")) == {
        "bias_gradient": PIXELS * 6,
        "transpose": PIXELS * 4 * 9 + PIXELS * 6,
        "conv_gradient": PRODUCTS,
        "requantize_gradient": n_weights + 6,
        "stochastic_rounding": n_weights + 6,
    }


def test_update_with_momentum() -> None:
    n = 6 * 4 * 9 + 6
    assert units(op("update")) == {"update": n, "momentum": n, "requantize_update": n, "stochastic_rounding": n}


def test_ranking_sorts_as_deep_as_the_number_of_values_has_bits() -> None:
    loss = dataclasses.replace(conv(4, 4, 1), kind="loss")
    ranking = op("rank", loss, payer="filter", batch=200)  # 128 < 200 < 256
    (work,) = works(ranking)
    assert (work.kernel, work.units, work.sram_bytes, work.phase) == ("sort", 200 * 8, 200 * 4, "filter_backward")
    with pytest.raises(HwmodelError, match="phase rank is a filter's, not payer main's"):
        op("rank", loss)


def test_a_strided_error_is_split_into_dense_convolutions() -> None:
    layer = conv(4, 6, 8, stride=2)
    # four phases of the input see 9 / 4 taps each on average: products as forward, not four times as many
    assert units(op("error", layer))["conv_error"] == BATCH * 4 * 4 * 36 * 6
    assert units(op("error", layer))["im2col"] == pytest.approx(BATCH * 64 * 6 * 9 / 4)


def test_frozen_weights_come_from_flash_once_for_two_pixels() -> None:
    frozen = op("forward", trains="none")
    (product,) = [w for w in works(frozen) if w.kernel == "conv"]
    assert product.weight_bytes == 6 * 4 * 9
    assert product.reuse == PIXELS / 2
    assert "requantize_weight" not in units(frozen)


def test_only_biases_learn() -> None:
    found = units(op("gradient", trains="bias"))
    assert found == {"bias_gradient": PIXELS * 6, "requantize_gradient": 6, "stochastic_rounding": 6}
    assert units(op("update", trains="bias"))["update"] == 6


def test_kept_channels_shrink_every_product_and_copy() -> None:
    whole, half = units(op("gradient")), units(op("gradient", kept_channels=3))
    assert half["conv_gradient"] == whole["conv_gradient"] / 2
    assert half["transpose"] == PIXELS * 4 * 9 + PIXELS * 3


def test_float32_rounds_nothing() -> None:
    for phase in ("forward", "error", "gradient", "update"):
        names = units(op(phase, widths=Widths.uniform(32)))
        assert not [name for name in names if "requantize" in name or "rounding" in name]


def test_forms() -> None:
    assert form(op("forward", linear(4, 4))) == "linear"
    assert form(op("forward", conv(4, 4, 8, groups=4))) == "depthwise"
    assert form(op("forward", conv(4, 6, 8, kernel=1))) == "pointwise"
    assert form(op("forward", conv(4, 6, 8, groups=2))) == "conv"


def test_an_empty_batch_runs_no_kernel() -> None:
    assert works(op("forward", batch=0)) == ()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("conv", "linear")])
def test_every_kind_has_a_forward_rule_but_no_invented_pass(kind: str) -> None:
    layer = dataclasses.replace(conv(4, 4, 8), kind=kind, name=kind)
    assert works(op("forward", layer))
    if kind not in NORM_KINDS:
        with pytest.raises(HwmodelError, match=f"{kind}.*unknown kernel rule '{kind}/gradient'"):
            works(op("gradient", layer))
