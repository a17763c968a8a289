"""What is said of a filter's settings and its network's cost, and that the network's numbers are those of [numbers]."""

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from qtrain.console import show_result
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.simulate import simulate_experiment
from qtrain.training.remarks import unread
from qtrain.training.setup import build

SMALL = {"train.steps": 2, "train.batch_size": 8, "run.engine": "torch"}


class Tiny(nn.Module):
    """10 x 16 weights after a mean over 2 x 2 pixels: 160 multiply-accumulates."""

    input_shape, n_classes = (1, 8, 8), 10

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(nn.functional.avg_pool2d(x, 2).flatten(1))


def tiny() -> nn.Module:
    return Tiny()


def said(**options: object) -> list[str]:
    return list(unread(Experiment().with_options({key.replace("__", "."): value for key, value in options.items()})))


def printed(result: dict) -> str:
    console = Console(record=True, width=200)
    show_result(console, result)
    return console.export_text()


def test_settings_without_effect_are_named_with_what_they_are_for():
    assert said(filter__kind="random", filter__rate=0.2, filter__keep=0.3) == [
        "no effect with filter random: filter.rate (for filter instance)"
    ]
    assert said(filter__alpha_up=1.1, filter__alpha_down=0.9, filter__uncertainty=False) == [
        "no effect with filter instance: filter.alpha_up, filter.alpha_down (for filter.steer true-high or kept, with "
        "filter.adaptive); filter.uncertainty (for filter.steer true-high or kept)"
    ]
    assert said(filter__steer="true-high", filter__alpha_up=1.1, filter__uncertainty=False, filter__rate=0.1) == []


def test_what_a_number_plan_sets_is_nobodys_choice():
    """niti8 takes the filter's momentum away, whatever the filter."""
    assert said(numbers__plan="niti8", filter__kind="none") == []
    assert said(filter__momentum=0.0, filter__kind="none") == [
        "no effect with filter none: filter.momentum (for filter instance)"
    ]


def test_a_dear_filter_network_is_remarked_on(tmp_path):
    """Its multiply-accumulates over the 160 of a model of the user's own, in the console's table as well; the shipped
    model's own filter keeps to 10 % and is printed alone."""
    options = SMALL | {"model": f"{__name__}:tiny", "run.out": str(tmp_path / "run")}
    job = build(Experiment().with_options(options))
    share = sum(layer.macs for layer in job.filter.network.network.layers) / 160
    assert share > 1
    wanted = (
        f"filter network slimmer-lenet costs {100 * share:.1f}% of a forward pass of {__name__}:tiny, more than 10%"
    )
    result = simulate_experiment(Experiment().with_options(options))
    assert [line for line in result["warnings"] if line.startswith("filter network")] == [
        f"{wanted}; give a slimmer --filter-network, or --filter none"
    ]
    with pytest.raises(QtrainError, match=r"costs .* \(--strict\)"):
        build(Experiment().with_options(options | {"run.strict": True}))
    assert f"slimmer-lenet, {100 * share:.1f} % of a forward pass" in printed(result)
    assert build(Experiment().with_options(SMALL)).notices.lines == []


def test_those_that_went_backward_are_printed_where_they_are_fewer_than_the_kept(tmp_path):
    """ohem at 0.25: 2 of 8 in each of 2 steps."""
    options = SMALL | {"filter.kind": "ohem", "filter.keep": 0.25, "run.out": str(tmp_path / "run")}
    result = simulate_experiment(Experiment().with_options(options))
    assert result["instances"] == {"seen": 16, "kept": 16, "uncertain": 0, "backward": 4}
    assert "4  (25.0 %)" in next(line for line in printed(result).splitlines() if "gone backward" in line)
    assert "gone backward" not in printed(result | {"instances": result["instances"] | {"backward": 16}})


def test_rules_for_single_layers_are_not_the_filter_networks():
    """Both networks have a conv1; the rule's 2 bits are the main one's alone."""
    made = Experiment().with_options(SMALL).with_layer("conv1", weight_bits=2)
    job = build(made)
    nets = (job.net, job.filter.network)
    assert all("conv1" in [layer.name for layer in net.network.layers] for net in nets)
    assert [net.plan.for_layer("conv1").weight_bits for net in nets] == [2, 8]
    # 2 bits are the codes -2 to 1 of one exponent, so that at most four values compute
    for net, few in zip(nets, (True, False), strict=True):
        net.run(torch.randn(4, 1, 8, 8))
        unit = next(unit for unit in net.units if unit.name == "conv1")
        found = unit.q.weight(unit.module.weight.detach(), None, learn=False).values.unique()
        assert (len(found) <= 4) == few


@pytest.mark.parametrize(
    ("bits", "layer_bits", "divisor"), [(8, None, 7.5), (8, 16, 1.0), (16, None, 1.0), (8, 4, 7.5)]
)
def test_the_papers_divisor_is_for_8_bits_in_every_layer(bits, layer_bits, divisor, tmp_path):
    made = Experiment().with_options(SMALL | {"run.out": str(tmp_path / "run"), "numbers.bits": bits})
    if layer_bits is not None:
        made = made.with_layer("conv1", error_bits=layer_bits)
    assert simulate_experiment(made)["paper_accounting"]["divisor"] == divisor
