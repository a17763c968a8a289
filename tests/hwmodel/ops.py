"""Random layers and Ops for the pricing laws."""

from __future__ import annotations

from hypothesis import strategies as st

from hwmodel.operations import NORM_KINDS, Layer, Op, Widths

BITS = st.sampled_from([2, 3, 4, 5, 8, 9, 12, 16, 32])
SIDES = st.sampled_from([1, 2, 4, 8])
CHANNELS = st.integers(1, 24)
PHASES_OF = {
    "conv": ("forward", "error", "gradient", "update", "select", "thin"),
    "linear": ("forward", "error", "gradient", "update"),
    **dict.fromkeys(NORM_KINDS, ("forward", "error", "gradient", "update")),
    "fork": ("error",),
    "loss": ("forward", "error", "rank"),
    "input": ("forward",),
}


def conv(
    channels: int,
    out: int,
    side: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
    activation: str = "none",
) -> Layer:
    """A convolution with "same" padding."""
    small = -(-side // stride)
    return Layer("conv", "conv", ("x",), channels, side, side, out, small, small,
                 kernel, kernel, stride, stride, groups, bias, activation)  # fmt: skip


def linear(n_in: int, n_out: int) -> Layer:
    """A fully connected layer with bias."""
    return Layer("fc", "linear", ("x",), n_in, 1, 1, n_out, 1, 1, bias=True)


@st.composite
def mac_layers(draw: st.DrawFn) -> Layer:
    """A conv (dense, pointwise or depthwise) or a linear layer."""
    kind = draw(st.sampled_from(["conv", "depthwise", "linear"]))
    channels, out = draw(CHANNELS), draw(CHANNELS)
    if kind == "linear":
        return linear(channels, out)
    if kind == "depthwise":
        channels = out = max(2, channels)
    return conv(
        channels, out, draw(SIDES), draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 2])),
        channels if kind == "depthwise" else 1, draw(st.booleans()), draw(st.sampled_from(["none", "relu"])),
    )  # fmt: skip


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """Any kind of layer."""
    kind = draw(
        st.sampled_from(
            ["mac", *NORM_KINDS, "activation", "add", "fork", "maxpool", "avgpool", "shortcut", "input", "loss"]
        )
    )
    if kind == "mac":
        return draw(mac_layers())
    channels, side = draw(CHANNELS), draw(SIDES)
    if kind == "loss":
        return Layer("loss", kind, ("x",), channels, 1, 1, 1, 1, 1)
    if kind in ("maxpool", "avgpool"):
        return Layer("pool", kind, ("x",), channels, 2 * side, 2 * side, channels, side, side, 2, 2, 2, 2)
    inputs = () if kind == "input" else ("x", "y") if kind == "add" else ("x",)
    return Layer(kind, kind, inputs, channels, side, side, channels, side, side)


@st.composite
def ops(draw: st.DrawFn) -> Op:
    """Any Op with every channel kept."""
    layer = draw(layers())
    phase = draw(st.sampled_from(PHASES_OF.get(layer.kind, ("forward", "error"))))
    update = phase == "update"
    learns = ["all", "bias"] if phase in ("gradient", "update") else ["all", "bias", "none"]
    return Op(
        layer, Widths.uniform(draw(BITS)), phase,
        "filter" if phase == "rank" else draw(st.sampled_from(["main", "filter", "uncertain"])),
        0 if update else draw(st.integers(1, 4)), layer.out_channels, draw(st.sampled_from(learns)),
        draw(st.integers(1, 3)) if update else 0,
    )  # fmt: skip


@st.composite
def mac_ops(draw: st.DrawFn) -> Op:
    """A pass of a conv or linear layer of the main network that multiplies: every weight learns."""
    layer, phase = draw(mac_layers()), draw(st.sampled_from(["forward", "error", "gradient"]))
    widths, batch = Widths.uniform(draw(BITS)), draw(st.integers(1, 4))
    return Op(layer, widths, phase, "main", batch, layer.out_channels, "all", 0)
