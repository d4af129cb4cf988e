import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from crispseg import create_model
from crispseg.inference.device import in_parallel
from crispseg.inference.segmenter import WORKERS, Segmenter


def test_small_images_share_the_threads_and_large_ones_have_all(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_results_keep_the_order_and_errors_are_in_their_place() -> None:
    def work(number: int) -> int:
        if number == 1:
            raise KeyError(number)
        time.sleep(0.05 * (number == 0))
        return -number

    found = [(number, future.exception() or future.result()) for number, future in in_parallel(range(4), work, 2)]
    assert [number for number, _ in found] == [0, 1, 2, 3]
    assert isinstance(found[1][1], KeyError) and [found[index][1] for index in (0, 2, 3)] == [0, -2, -3]


def test_a_buffer_may_be_used_for_all_images() -> None:
    segmenter = Segmenter(create_model("sfnet", num_classes=3, backbone="test_efficientnet", width=8), "cpu")
    buffer = np.zeros((40, 40, 3), np.uint8)

    def frames() -> Iterator[Any]:
        for number in range(6):
            buffer[:] = number
            yield buffer

    assert [result.image.max() for result in segmenter.stream(frames())] == [*range(6)]
