"""Answers that nobody reads: who is cut off and who is refused, with a clock of the test's own."""

import asyncio
from collections.abc import Callable

import pytest

from service.errors import AnswersUnread
from service.http.unsent import Outbox, UnsentAnswers
from service.limits.fairness import GRACE_S, SLOW_BYTES_PER_S

STALL_S = 20.0
MIB = 2**20
MAX_BYTES = 10 * MIB


class Reader(asyncio.Transport):
    """A connection whose client takes what the test says."""

    def __init__(self, answers: UnsentAnswers, address: str) -> None:
        super().__init__()
        self.unsent = 0
        self.cut_off = False
        self.outbox = Outbox(answers, self)
        self.address = address

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.cut_off = True

    def answer(self, size: int) -> None:
        """Raises `AnswersUnread`."""
        self.outbox.make_room(self.address, size)
        self.unsent += size
        self.outbox.wrote(size)

    def take(self, size: int) -> None:
        self.unsent -= size


class World:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.answers = UnsentAnswers(MAX_BYTES, STALL_S, lambda: self.now_s)

    def reader(self, address: str = "a") -> Reader:
        return Reader(self.answers, address)

    def passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.answers.check()


def run(scenario: Callable[[World], None]) -> None:
    async def in_a_loop() -> None:  # which has the timer
        scenario(World())

    asyncio.run(in_a_loop())


def test_a_client_that_takes_nothing_is_cut_off_in_time() -> None:
    def scenario(world: World) -> None:
        silent, reads, done = (world.reader() for _ in range(3))
        for reader in (silent, reads, done):
            reader.answer(MIB)
        done.take(MIB)
        for _ in range(10):
            world.passes(STALL_S / 4)
            reads.take(100)
        assert (silent.cut_off, reads.cut_off, done.cut_off) == (True, False, False)
        world.passes(STALL_S)
        world.passes(STALL_S)
        assert reads.cut_off

    run(scenario)


def test_time_counts_from_the_first_unread_byte() -> None:
    def scenario(world: World) -> None:
        reader = world.reader()
        reader.answer(MIB)
        world.passes(STALL_S * 0.9)
        reader.take(MIB)
        reader.answer(MIB)  # before anybody has looked
        world.passes(STALL_S * 0.9)
        assert not reader.cut_off
        reader.outbox.expect("a", MIB)
        reader.take(MIB)
        world.passes(STALL_S * 2)
        assert not reader.cut_off  # its next answer takes long to compute

    run(scenario)


def test_too_many_unread_bytes_refuse_a_new_answer_of_the_same_client() -> None:
    def scenario(world: World) -> None:
        first = world.reader()
        first.answer(8 * MIB)
        with pytest.raises(AnswersUnread, match="wait to be read"):
            world.reader().answer(3 * MIB)
        world.reader().answer(1000)  # as an error has
        world.passes(GRACE_S * 4)
        world.reader().answer(3 * MIB)  # now the first one is slow
        assert first.cut_off

    run(scenario)


def test_a_steady_reader_is_not_cut_off_for_its_own_address() -> None:
    def scenario(world: World) -> None:
        steady = world.reader()
        steady.answer(9 * MIB)
        for _ in range(int(GRACE_S * 4)):
            steady.take(SLOW_BYTES_PER_S * 2)
            world.passes(1)
        with pytest.raises(AnswersUnread):
            world.reader().answer(8 * MIB)
        assert not steady.cut_off

    run(scenario)


def test_who_holds_the_most_gives_way_to_others() -> None:
    def scenario(world: World) -> None:
        crowd = [world.reader("a") for _ in range(3)]
        for reader in crowd:
            reader.answer(3 * MIB)
        crowd[0].take(MIB)
        world.reader("b").answer(3 * MIB)
        assert [reader.cut_off for reader in crowd] == [False, True, False]

    run(scenario)


def test_answers_count_before_they_are_computed() -> None:
    def scenario(world: World) -> None:
        computing, asks = world.reader("a"), world.reader("b")
        computing.outbox.expect("a", 8 * MIB)
        with pytest.raises(AnswersUnread, match="being computed"):
            asks.outbox.expect("b", 3 * MIB)
        computing.answer(4 * MIB)  # it was smaller
        asks.outbox.expect("b", 3 * MIB)
        asks.outbox.discard()  # the client has left
        world.reader("b").outbox.expect("b", 3 * MIB)

    run(scenario)
