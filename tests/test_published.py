"""timm's published weights: found in the hub's cache, downloaded, or said at once to be out of reach."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from training_runs import quietly, tiny

from crispseg.backbones import Backbone
from crispseg.backbones.published import weights_source
from crispseg.data import Folder
from crispseg.training import ModelConfig

TINY = "test_efficientnet"
HUB_ID = "timm/test_efficientnet.r160_in1k"
COMMIT = "0123456789012345678901234567890123456789"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    save_file(timm.create_model(TINY).state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


class Hub(http.server.ThreadingHTTPServer):
    """A hub with one file, that remembers what it was asked."""

    def __init__(self, content: bytes, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.content, self.status = content, status
        self.asked: list[str] = []


class Answers(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        if self.path.startswith(f"/{HUB_ID}"):
            self.server.asked.append(self.command)
        known = self.path == f"/{HUB_ID}/resolve/main/model.safetensors"
        status = self.server.status if known else 404
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        if status == 200:
            self.send_header("ETag", '"an-etag"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(self.server.content) if status == 200 else 0))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.server.content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(weights.read_bytes()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        use_hub(f"http://127.0.0.1:{server.server_port}", monkeypatch)
        yield server
        server.shutdown()
        thread.join()


def use_hub(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "ENDPOINT", address)
    monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


def assert_published(backbone: Backbone) -> None:
    torch.manual_seed(1)
    expected = timm.create_model(TINY).state_dict()
    assert torch.equal(backbone.net.model.conv_stem.weight, expected["conv_stem.weight"])


def test_weights_are_downloaded_once_and_then_need_no_network(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights_source(TINY, True) == f"the published weights {HUB_ID} of the Hugging Face hub"
    assert served.asked.count("GET") == 1
    served.asked.clear()

    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"the network is asked: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert_published(Backbone(TINY, pretrained=True))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert_published(Backbone(TINY, pretrained=True))
    assert served.asked == []


@pytest.mark.parametrize("fault", ["no server", "busy", "no such file", "offline"])
def test_a_hub_out_of_reach_is_asked_once(
    fault: str, served: Hub, refuses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.status = {"busy": 503, "no such file": 404}.get(fault, 200)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", fault == "offline")
    if fault == "no server":
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            use_hub(f"http://127.0.0.1:{closed.getsockname()[1]}", monkeypatch)

    def fail(seconds: float) -> None:
        raise AssertionError(f"waits {seconds} s for another try")

    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", fail)
    with refuses(f"cannot get the weights of backbone '{TINY}' from {HUB_ID} (", "model.pretrained"):
        Backbone(TINY, pretrained=True)
    asked = {"busy": 1, "no such file": 2}  # of the second there are two possible names
    assert len(served.asked) == asked.get(fault, 0)


def test_training_says_so_before_it_reads_the_data_and_after_files_that_are_missing(
    tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    data = Folder(tmp_path / "images", tmp_path / "masks")
    with refuses(f"{tmp_path / 'images'}"):
        quietly(tiny(tmp_path / "run", data=data, model=ModelConfig("fpn", TINY, pretrained=True)))
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in ("a.png", "b.png"):
            (tmp_path / folder / name).write_text("no picture")
    with refuses("cannot get the weights", "HF_HUB_OFFLINE"):
        quietly(tiny(tmp_path / "run", data=data, model=ModelConfig("fpn", TINY, pretrained=True)))
    with refuses("weight file yes does not exist"):
        quietly(tiny(tmp_path / "run", data=data, model=ModelConfig("fpn", TINY, pretrained="yes")))


def test_where_weights_come_from(weights: Path) -> None:
    assert weights_source(TINY, str(weights)) == f"the weights in {weights}"
    assert weights_source(TINY, False) == "random weights; see model.pretrained"
    assert weights_source("shufflenetv2_x1_0", True) == "the published weights of torchvision"
