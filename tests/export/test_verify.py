"""The comparison with PyTorch: what it finds, what it lets pass, and how little it has to run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from export.build import Build, build
from export.conditioning import Conditioning
from export.record import record_of
from export.verify import VerificationError, Verified, verify
from models.checkpoint import Checkpoint
from models.config import ARCHITECTURES, DeepViTConfig
from models.deepvit import DeepViT
from models.manifest import Manifest
from models.preprocess import Preprocessing
from service.explain import similarity
from tests.support.networks import random_network, settled

CONFIG = ARCHITECTURES["deepvit_test"].config
SMALL = CONFIG.model_copy(update={"depth": 3, "reatten_blocks": (1, 2)})


def built(network: DeepViT, folder: Path, batch: int = 3) -> tuple[Build, Manifest]:
    config = network.config
    source = Checkpoint(
        config, network.state_dict(), Preprocessing(size=config.img_size), sha256="0" * 64
    )
    found = build(source, "fp32", None, lambda _: None)
    found.save(folder)
    labels = tuple(map(str, range(config.num_classes)))
    record = record_of(
        found, source, name="t", version=1, file="t", labels=labels, max_batch_size=batch
    )
    return found, record


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Build, Manifest]:
    folder = tmp_path_factory.mktemp("verified")
    return folder, *built(settled(random_network(SMALL)), folder)


def near_uniform(config: DeepViTConfig) -> DeepViT:
    """As initialised for training: every token attends to all tokens alike, but for 1e-7."""
    torch.manual_seed(0)
    network = DeepViT(config)
    with torch.no_grad():
        for block in network.blocks:
            block.attn.qkv.weight.mul_(3e-3)  # type: ignore[union-attr, operator]
    return settled(network.requires_grad_(False))


def test_no_batch_is_run_that_is_never_served(trained: tuple[Path, Build, Manifest]) -> None:
    folder, found, record = trained
    for largest, explained in ((3, 3), (3, 1), (1, 1)):
        limits = {"max_batch_size": largest, "max_explain_batch_size": explained}
        parity = verify(folder, found.network, record.model_copy(update=limits)).parity
        batches = {
            graph: {row.batch for row in parity if row.graph == graph}
            for graph in ("model", "explain")
        }
        assert batches == {
            "model": {1, min(2, largest), largest},
            "explain": {1, min(2, explained), explained},
        }


def test_every_output_of_another_network_is_named(trained: tuple[Path, Build, Manifest]) -> None:
    folder, _, record = trained
    other = settled(random_network(SMALL, seed=1))
    with pytest.raises(VerificationError, match="differs from PyTorch") as refused:
        verify(folder, other, record)
    for output in record.outputs:  # cosines may be off by as much as the maps are
        if "similarity" not in output.name or output.stage is None:
            assert f" {output.name} at batch 1: " in str(refused.value), output.name


def test_cosines_of_sharp_maps_get_no_slack(trained: tuple[Path, Build, Manifest]) -> None:
    """The allowance follows from the maps' own error, so that it hides nothing in these."""
    folder, found, record = trained
    parity: Verified = verify(folder, found.network, record)
    assert not parity.undefined
    for row in parity.parity:
        if "similarity." in row.output and "neighbour" not in row.output:
            assert row.tolerance < 1e-3, row


def test_a_wrong_measure_of_right_maps_is_found(trained: tuple[Path, Build, Manifest]) -> None:
    _, _, record = trained
    generator = torch.Generator().manual_seed(0)
    maps = {
        output.name: torch.rand((1, *output.shape), generator=generator).double().softmax(-1)
        for output in record.outputs
        if output.measure == "map"
    }
    slack = Conditioning(maps, {k: v.float() for k, v in maps.items()}, record).slack
    assert slack
    assert all(float(value.max()) < 1e-4 for value in slack.values())


def test_a_network_with_near_uniform_maps_is_exported(tmp_path: Path) -> None:
    network = near_uniform(CONFIG.model_copy(update={"depth": 2, "reatten_blocks": (1,)}))
    found, record = built(network, tmp_path)
    verified = verify(tmp_path, found.network, record)
    noisy = {(one.stage, one.measure): one.blocks for one in verified.undefined}
    assert ("softmax", "similarity.centred") in noisy
    assert all(measure == "similarity.centred" for _, measure in noisy)


def test_the_service_answers_what_is_undefined_as_such(
    trained: tuple[Path, Build, Manifest],
) -> None:
    _, _, record = trained
    undefined = {"stage": "softmax", "measure": "similarity.centred", "blocks": (1,)}
    record = Manifest.model_validate(record.model_dump() | {"undefined": [undefined]})
    values = {output.name: np.ones(output.shape, np.float32) for output in record.outputs}
    found = similarity.measure(record, "softmax", 0.9, values).matrix
    assert np.isnan(found["centred"]).tolist() == [
        [False, True, False],
        [True, True, True],
        [False, True, False],
    ]
    assert not np.isnan(found["column"]).any()
    mixed = similarity.measure(record, "reattention", 0.9, values).matrix
    assert not np.isnan(mixed["centred"]).any()
