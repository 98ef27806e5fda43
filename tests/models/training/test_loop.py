"""What a run returns: an average of weights whose norms have statistics of its own."""

import copy
from itertools import islice

import pytest
import torch
from torch import nn

from models.config import ARCHITECTURES
from models.training.augment import Augment
from models.training.initialise import initialised
from models.training.loop import Data, Run
from models.training.photographs import Photographs
from models.training.progress import Progress
from models.training.recipe import Recipe

BATCH, BATCHES = 8, 5
RECIPE = Recipe(epochs=2, batch_size=BATCH, precision="fp32", lr=0.01, warmup_epochs=0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config, rule = ARCHITECTURES["deepvit_test"].config, ARCHITECTURES["deepvit_test"].preprocessing
    random = torch.Generator().manual_seed(0)
    count = BATCH * BATCHES
    labels = torch.arange(count) % config.num_classes
    pixels = torch.randint(0, 256, (count, 3, 40, 40), dtype=torch.uint8, generator=random)
    data = Data(
        training=Photographs(pixels, torch.full((count, 2), 40.0), labels),
        soft=None,
        test=pixels[:, :, : rule.size.height, : rule.size.width],
        test_labels=labels,
        classes=config.num_classes,
        identity="noise",
    )
    folder = tmp_path_factory.mktemp("run")
    begin = initialised(config, RECIPE.seed)
    trained = Run(begin, rule, RECIPE, data, folder, torch.device("cpu"))
    trained.train(Progress(RECIPE.epochs, 0, trained.steps_per_epoch, BATCH))
    return trained


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]


def test_weights_are_averaged_and_statistics_are_those_of_the_average(run: Run) -> None:
    result = run.result()
    expected = copy.deepcopy(run._average()).train()
    for norm in norms(expected):
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's own cumulative average
    augment = Augment(RECIPE, run.rule)
    with torch.no_grad():
        for draws, chosen in islice(run._batches(), BATCHES):
            expected(run._batch(run.data.training, chosen, draws, augment)[0])
    assert norms(result)
    for found, right in zip(norms(result), norms(expected), strict=True):
        torch.testing.assert_close(found.running_mean, right.running_mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.running_var, right.running_var, rtol=1e-3, atol=1e-8)
        assert found.momentum == 0.1
    for weights, averaged in zip(result.parameters(), expected.parameters(), strict=True):
        assert torch.equal(weights, averaged)
    assert not result.training


def test_asking_for_the_result_changes_nothing(run: Run) -> None:
    first, again = run.result(), run.result()
    for (name, one), other in zip(
        first.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
