"""What became of the items of one queue, in numbers."""

from collections import Counter
from dataclasses import dataclass, field, replace


@dataclass
class Counts:
    """Items by outcome since the start, and batches by size.

    The counts add up: accepted = answered + failed + cancelled + expired + in flight.
    """

    accepted: int = 0
    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0
    refused: int = 0  # never accepted
    batch_sizes: Counter[int] = field(default_factory=Counter)

    @property
    def in_flight(self) -> int:
        return self.accepted - self.answered - self.failed - self.cancelled - self.expired

    def copy(self) -> "Counts":
        return replace(self, batch_sizes=Counter(self.batch_sizes))
