"""What a window says: nothing if it is ordinary, an alarm if not, and collapse by its means."""

import numpy as np
import pytest

from models import drift
from models.arrays import Float64Array
from models.collapse import THRESHOLD
from models.drift import LEAST_IN_WINDOW, WINDOW, Signal
from models.manifest import Manifest
from models.signals import Signals
from service.monitor.findings import Findings
from service.monitor.window import Sums
from tests.conftest import DEEPVIT, VIT
from tests.service.monitor.small_models import manifest_of, without_reference


def sums_of(manifest: Manifest, mean: Float64Array, images: int = WINDOW) -> Sums:
    """Of images that all have these signals [S], answered with the first class."""
    classes = np.zeros(len(manifest.labels), np.int64)
    classes[0] = images
    return Sums(images, mean * images, np.square(mean) * images, classes, 0.0)


def normal(manifest: Manifest) -> Float64Array:
    assert manifest.reference is not None
    return manifest.reference.moments(Signals(manifest).names).mean.copy()


@pytest.mark.parametrize("name", [DEEPVIT, VIT])
def test_the_mean_of_the_reference_has_not_drifted(name: str) -> None:
    manifest = manifest_of(name)
    found = Findings(manifest, sums_of(manifest, normal(manifest)))
    assert found.drift == pytest.approx(0, abs=1e-6)
    assert found.alarm is False


def test_one_signal_that_is_far_off_is_an_alarm_and_is_named() -> None:
    manifest = manifest_of()
    names, mean = Signals(manifest).names, normal(manifest)
    assert manifest.reference is not None
    changed = names.index(Signal("entropy", "softmax", 7))
    mean[changed] -= 3 * manifest.reference.moments(names).spread[changed]
    found = Findings(manifest, sums_of(manifest, mean))
    (signal, deviation), *_ = found.strongest(5)
    assert signal == Signal("entropy", "softmax", 7)
    expected = drift.deviations(mean, WINDOW, manifest.reference.moments(names))[changed]
    assert deviation == pytest.approx(expected)
    assert deviation < 0
    assert found.drift == pytest.approx(-deviation)
    assert found.alarm is True
    (entropy,) = (one for one in found.measures if one.measure == "entropy")
    assert entropy.blocks[np.argmin(entropy.deviation)] == 7


def test_few_images_have_deviations_but_no_verdict() -> None:
    manifest = manifest_of()
    found = Findings(manifest, sums_of(manifest, normal(manifest) + 1, LEAST_IN_WINDOW - 1))
    assert (found.drift, found.alarm, found.class_distance) == (None, None, None)
    assert len(found.strongest(5)) == 5


def test_no_images_say_nothing() -> None:
    manifest = manifest_of()
    found = Findings(manifest, Sums.none(len(Signals(manifest).names), len(manifest.labels)))
    assert (found.measures, found.strongest(5), found.drift) == ((), [], None)
    assert set(found.similar_blocks.values()) == {()}


def test_without_a_reference_measures_remain() -> None:
    manifest = without_reference()
    found = Findings(manifest, sums_of(manifest, np.full(len(Signals(manifest).names), 0.95)))
    assert (found.drift, found.alarm, found.class_distance) == (None, None, None)
    assert found.strongest(5) == []
    assert all(np.isnan(one.deviation).all() for one in found.measures)
    assert {one.measure for one in found.measures} > {"similarity.column", "entropy"}
    assert found.similar_blocks["softmax"] == tuple(range(1, manifest.config.depth))


def test_a_signal_that_the_reference_lacks_is_compared_with_nothing() -> None:
    manifest = manifest_of()
    assert manifest.reference is not None
    kept = tuple(one for one in manifest.reference.measures if one.measure != "entropy")
    reference = manifest.reference.model_copy(update={"measures": kept})
    mean = normal(manifest)
    mean[[signal.measure == "entropy" for signal in Signals(manifest).names]] += 100
    older = manifest.model_copy(update={"reference": reference})
    found = Findings(older, sums_of(older, mean))
    (entropy,) = (one for one in found.measures if one.measure == "entropy")
    assert np.isnan(entropy.deviation).all()
    assert found.drift == pytest.approx(0, abs=1e-6)


def test_blocks_are_similar_by_columns_and_collapsed_by_rows_too() -> None:
    manifest = without_reference()
    high, low = THRESHOLD + 0.05, THRESHOLD - 0.05

    def value(signal: Signal) -> float:
        if signal.measure == "similarity.column":
            return high if signal.stage == "softmax" and signal.block in (2, 3) else low
        return high if signal.block == 3 else low

    mean = np.array([value(signal) for signal in Signals(manifest).names])
    found = Findings(manifest, sums_of(manifest, mean))
    assert found.similar_blocks == {"softmax": (2, 3), "reattention": ()}
    assert found.collapsed_blocks == {"softmax": (3,), "reattention": ()}


def test_a_network_that_never_mixes_has_one_stage() -> None:
    manifest = manifest_of(VIT)
    found = Findings(manifest, sums_of(manifest, normal(manifest)))
    assert found.similar_blocks.keys() == found.collapsed_blocks.keys() == {"softmax"}


def test_the_distance_of_classes_is_half_of_all_differences() -> None:
    manifest = manifest_of()
    assert manifest.reference is not None
    found = Findings(manifest, sums_of(manifest, normal(manifest)))
    assert found.class_distance == pytest.approx(1 - manifest.reference.class_shares[0], abs=1e-4)


def test_an_earlier_export_lacks_measures() -> None:
    manifest = without_reference()
    outputs = tuple(one for one in manifest.outputs if one.measure != "similarity.row")
    earlier = manifest.model_copy(update={"outputs": outputs})
    found = Findings(earlier, sums_of(earlier, np.full(len(Signals(earlier).names), 0.95)))
    assert "similarity.row" not in {one.measure for one in found.measures}
    assert found.collapsed_blocks["softmax"] == ()
    assert len(found.similar_blocks["softmax"]) == manifest.config.depth - 1
