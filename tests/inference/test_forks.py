"""Processes that are forked after a Segmenter was created answer, or refuse."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from exports import exported

PROGRAM = """
import multiprocessing, sys, warnings
import numpy as np, torch, crispseg
warnings.simplefilter("ignore")
torch.set_num_threads(2)
path, backend = sys.argv[1:]
segmenter = crispseg.Segmenter(path, backend=backend)
image = np.zeros((300, 300, 3), np.uint8)
segmenter(image)
begun = segmenter.stream([image] * 6)
next(begun)

def work(way):
    try:
        if way == "stream":
            return [result.labels.shape for result in begun]
        own = crispseg.Segmenter(path, backend=backend) if way == "own" else segmenter
        return own([image] * 3)[0].labels.shape if way == "list" else own(image).labels.shape
    except crispseg.CrispsegError as error:
        return str(error)

with multiprocessing.get_context("fork").Pool(1) as pool:
    for way in ("call", "list", "own", "stream"):
        print(pool.apply_async(work, (way,)).get(timeout=30))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "onnxruntime", "openvino"])
def test_forked_processes(kind: str, folder: Path, tmp_path: Path) -> None:
    path = folder if kind == "model" else exported(tmp_path / "a.onnx")
    command = [sys.executable, "-c", PROGRAM, str(path), "auto" if kind == "model" else kind]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "2"}, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    assert "begin another after a fork" in lines.pop()
    if kind == "openvino":
        pytest.importorskip("openvino")
        assert all("forked after OpenVINO" in line and "spawn" in line for line in lines)
    else:
        assert lines == ["(300, 300)"] * 3
