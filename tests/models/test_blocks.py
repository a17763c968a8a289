"""The building blocks against their definitions."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from qtrain import models
from qtrain.models._blocks import BasicBlock, OptionA
from qtrain.models.dscnn import same_padding


def test_option_a_keeps_every_second_pixel_between_zero_channels() -> None:
    x = torch.arange(2 * 2 * 5 * 4, dtype=torch.float32).reshape(2, 2, 5, 4) + 1
    y = OptionA(2, 5, 2)(x)
    assert y.shape == (2, 5, 3, 2)  # ceil(5 / 2), ceil(4 / 2); 3 new channels: 1 before, 2 after
    assert torch.equal(y[:, 1:3], x[:, :, [0, 2, 4]][:, :, :, [0, 2]])
    assert y[:, [0, 3, 4]].abs().sum() == 0


def test_a_block_with_zero_weights_is_its_shortcut() -> None:
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    for block, shortcut in (
        (BasicBlock(4, 4, 1, projection=False), x),
        (BasicBlock(4, 8, 2, projection=False), OptionA(4, 8, 2)(x)),
    ):
        torch.nn.init.zeros_(block.norm.weight)
        assert torch.equal(block(x), shortcut.relu())


@given(size=st.integers(1, 100), kernel=st.integers(1, 12), stride=st.integers(1, 4))
def test_same_padding_gives_ceil_of_size_over_stride(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    assert 0 <= before <= after <= before + 1
    if kernel >= stride:  # otherwise pixels are skipped and nothing need be added
        assert (size + before + after - kernel) // stride + 1 == -(-size // stride)


def test_dscnn_pads_49_rows_by_4_and_5_and_10_columns_by_1_and_1() -> None:
    # 25 outputs of stride 2 and kernel 10 read 24 * 2 + 10 = 58 rows: 9 more; 5 outputs of kernel 4 read 12 columns
    assert models.build("dscnn").pad.padding == (1, 1, 4, 5)


def test_convolutions_start_with_variance_two_over_fan_in() -> None:
    weight = models.build("vgg16").conv4_2.conv.weight
    assert abs(weight.var().item() * 512 * 9 / 2 - 1) < 0.01  # 2.4 million draws: error about 0.001
