"""The small parts of recipes: the catalogue, averaged weights, drawn labels, the linear probe, fixmatch's threshold."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import cli
from hwmodel.schedule import Schedule
from qtrain.recipes.average import WeightAverage
from qtrain.recipes.catalog import RECIPES
from qtrain.recipes.probe import linear_probe


def test_the_command_lists_every_recipe_without_torch():
    listed = json.loads(CliRunner().invoke(cli.main, ["recipes", "--json"]).stdout)
    assert [row["name"] for row in listed] == [info.name for info in RECIPES]
    table = CliRunner().invoke(cli.main, ["recipes"]).stdout
    assert all(info.name in table for info in RECIPES)
    program = "import sys, qtrain.recipes.catalog; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_average_follows_its_recursion_and_is_only_put_in_for_a_while(job):
    made = job("supervised")
    model = made.net.model
    average = WeightAverage(0.5)
    name, weight = next(iter(model.named_parameters()))
    values = []
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            weight.fill_(value)
        average.update(model)
        values.append(float(average.weights[name].flatten()[0]))
    # decay min(.5, (1 + t) / (10 + t)): t = 1: 2/11, t = 2: 3/12
    second = 2 / 11 * 1 + 9 / 11 * 2
    assert values == pytest.approx([1.0, second, 0.25 * second + 0.75 * 4])
    with average.put_in(made.net):
        assert float(weight.detach().flatten()[0]) == pytest.approx(values[-1])
    assert float(weight.detach().flatten()[0]) == 4.0


def test_labelled_instances_are_drawn_equally_often(job):
    recipe = job("sinkhorn", data__n_labels=20, sinkhorn__labelled=8).recipe
    drawn = np.concatenate([recipe._draw(step).numpy() for step in range(5)])  # 40 draws of 20 instances
    known, counts = np.unique(drawn, return_counts=True)
    assert known.tolist() == recipe.material.labelled.tolist()
    assert counts.tolist() == [2] * 20


def test_fixmatch_labels_the_confident_alone(job):
    recipe = job("sinkhorn", sinkhorn__allocation="fixmatch", sinkhorn__confidence=0.9).recipe
    p = torch.tensor([[0.95, 0.05], [0.5, 0.5], [0.05, 0.95]])
    assert recipe._labels(p).tolist() == [[1, 0], [0, 0], [0, 1]]
    targets, weights = recipe._normalized(recipe._labels(p))
    assert weights.tolist() == [1, 0, 1]
    assert targets.sum(1).tolist() == [1, 1, 1]


def test_a_linear_probe_separates_what_a_plane_does_and_knows_no_other_class():
    features = np.array([[0.0, 1], [0, 2], [5, 1], [5, 2]])
    labels = np.array([0, 0, 3, 3])
    accuracy, loss = linear_probe(features, labels, np.array([[0.0, 1.5], [5, 1.5], [5, 1.5]]), np.array([0, 3, 1]))
    assert accuracy == pytest.approx(2 / 3)
    assert loss >= -np.log(1e-12) / 3  # the class never seen


def test_a_schedule_keeps_what_the_recipe_holds(job):
    made = job("contrast")
    again = Schedule.from_json(json.loads(json.dumps(made.schedule.to_json())))
    # 8 images of 64 pixels and a score of 4 bytes each
    assert again.extra_ram_bytes == {"contrast buffer": 8 * (64 + 4)}
