"""Results that people may still click on: kept for all users in one bounded place, each under a secret of its own."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from crispseg.demo.alignment import Step
from crispseg.labels import LabelSet


@dataclass(frozen=True, eq=False)
class Kept:
    """What is needed to tell about a pixel of a segmented image."""

    labels: NDArray[np.uint8]
    """`(h, w)` class ids of the image that the network saw."""
    label_set: LabelSet
    steps: tuple[Step, ...]
    """Of the model's alignment, in the order in which they ran."""

    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.labels.nbytes + sum(step.nbytes() for step in self.steps)


class Store:
    """The latest results, at most `capacity` bytes of them besides the very last one; safe to share between threads.

    Who has a result's token can ask for it. Tokens stay on the server, in the session of the page that made the result.
    """

    def __init__(self, capacity: int = 2**29) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = Lock()

    def put(self, result: Kept) -> str:
        """Keep a result; returns its token."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[token] = result
            while len(self._kept) > 1 and self._size() > self.capacity:
                self._kept.popitem(last=False)
        return token

    def get(self, token: str | None) -> Kept | None:
        """The result, if it is still there; it is then among the last to go."""
        with self._lock:
            if token is None or token not in self._kept:
                return None
            self._kept.move_to_end(token)
            return self._kept[token]

    def drop(self, token: str | None) -> None:
        """Forget a result."""
        with self._lock:
            self._kept.pop(token or "", None)

    def nbytes(self) -> int:
        """Memory that all take."""
        with self._lock:
            return self._size()

    def __len__(self) -> int:
        return len(self._kept)

    def _size(self) -> int:
        return sum(result.nbytes() for result in self._kept.values())
