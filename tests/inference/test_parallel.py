import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from crispseg import create_model
from crispseg.inference.device import WORKERS, in_parallel
from crispseg.inference.segmenter import Segmenter


def test_small_images_share_the_threads_and_large_ones_have_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segmenter = Segmenter(create_model("sfnet", num_classes=3, backbone="test_efficientnet", width=8), "cpu")
    monkeypatch.setattr("crispseg.inference.segmenter.LARGE", 64 * 64 * WORKERS)
    together = threading.Barrier(WORKERS, timeout=30)  # broken, unless so many small images are computed at a time
    threads: list[tuple[int, int, bool]] = []
    see = segmenter._see

    def seen(image: Any) -> Any:
        if image.shape[0] <= 64:
            together.wait()
        threads.append((image.shape[0], torch.get_num_threads(), threading.current_thread() is threading.main_thread()))
        return see(image)

    monkeypatch.setattr(segmenter, "_see", seen)
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        results = list(segmenter.stream([np.zeros((side, 64, 3), np.uint8) for side in (64, 64, 65, 64, 64)]))
        fresh = ThreadPoolExecutor(1).submit(torch.get_num_threads).result()
    finally:
        torch.set_num_threads(before)
    assert [result.labels.shape[0] for result in results] == [64, 64, 65, 64, 64]
    assert sorted(threads) == [(64, 3, False)] * 4 + [(65, 5, True)] and fresh == 5


def test_items_are_read_before_the_next_is_taken() -> None:
    buffer = [0]

    def frames() -> Iterator[list[int]]:
        for number in range(20):
            buffer[0] = number  # one buffer for all
            yield buffer
            time.sleep(0.001)
            buffer[0] = -1

    assert [future.result() for _, future in in_parallel(frames(), lambda item: item[0], int)] == [*range(20)]


@pytest.mark.parametrize("fails", ["read", "work"])
def test_lanes_keep_the_order_and_give_errors_in_their_place(fails: str) -> None:
    def read(number: int) -> int:
        if number == 1 and fails == "read":
            raise KeyError(number)
        return number

    def work(number: int) -> int:
        if number == 1:
            raise KeyError(number)
        time.sleep(0.05 * (number == 0))
        return -number

    def numbers() -> Iterator[int]:
        yield from range(4)
        raise OSError("no more")

    found = in_parallel(numbers(), read, work)
    results = [next(found) for _ in range(4)]
    assert [number for number, _ in results] == [0, 1, 2, 3]
    assert isinstance(results[1][1].exception(), KeyError)
    assert [results[index][1].result() for index in (0, 2, 3)] == [0, -2, -3]
    with pytest.raises(OSError, match="no more"):
        next(found)
