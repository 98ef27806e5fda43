"""When an image may be measured, by a clock that is set by hand."""

from dataclasses import dataclass, field

import pytest

from service.monitor.pace import SHARE, Pace


@dataclass
class Queue:
    busy: bool = False
    accepted: int = 0


@dataclass
class Scene:
    """A clock, two queues and the pace that looks at them."""

    now: float = 100.0
    queues: tuple[Queue, Queue] = field(default_factory=lambda: (Queue(), Queue()))

    def __post_init__(self) -> None:
        self.pace = Pace(lambda: self.now)

    def allows(self) -> bool:
        return self.pace.allows(self.queues)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_none_is_begun_while_a_model_has_work(scene: Scene) -> None:
    assert scene.allows()
    for queue in scene.queues:
        queue.busy = True
        scene.now += 1000
        assert not scene.allows()
        queue.busy = False
        assert scene.allows()


def test_the_next_waits_until_nothing_has_come_for_as_long_as_one_takes(scene: Scene) -> None:
    scene.pace.took(2.0)
    scene.queues[1].accepted += 1
    assert not scene.allows()
    scene.now += 1.9
    assert not scene.allows()
    scene.now += 0.1
    assert scene.allows()


def test_without_requests_images_follow_each_other(scene: Scene) -> None:
    scene.allows()
    scene.now += 5
    scene.pace.took(2.0)
    assert scene.allows()


def test_where_requests_keep_coming_measuring_takes_a_small_share_of_the_time(
    scene: Scene,
) -> None:
    measuring_s, begun_s = 0.0, scene.now
    for _ in range(20_000):
        scene.queues[0].accepted += 1
        scene.now += 0.01
        if scene.allows():
            scene.now += 0.05
            measuring_s += 0.05
            scene.pace.took(0.05)
    share = measuring_s / (scene.now - begun_s)
    assert share == pytest.approx(SHARE, rel=0.05)
