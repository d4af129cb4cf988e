"""Settings and fixtures of all tests.

Packages are imported where they are used: the process from which xdist starts those that run tests needs none of them,
and they would wait seconds for it.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from crispseg.training import Run

CACHE = tempfile.TemporaryDirectory(prefix="crispseg_cache_")
os.environ["CRISPSEG_CACHE"] = CACHE.name

Refuses = Callable[..., AbstractContextManager[None]]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1280,1400"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # this process only starts others
    import torch
    from hypothesis import settings

    gc.disable()
    atexit.register(gc.unfreeze)  # else libraries complain at the end that something was leaked
    settings.register_profile("crispseg", max_examples=50, deadline=None, derandomize=True, database=None)
    settings.load_profile("crispseg")
    torch.set_num_threads(1)  # tiny models gain nothing from more, and lose much on a busy machine


@contextmanager
def unknown_again() -> Iterator[None]:
    """As in a process of its own: what is registered inside is not known after it, and plugins are not loaded."""
    from crispseg.decoders import contexts, fuses, merges
    from crispseg.models.registry import models
    from crispseg.prediction import OUTPUTS

    registries = contexts, fuses, merges, models, OUTPUTS
    before = [{name: registry[name] for name in registry.names()} for registry in registries]
    modules = sys.modules.copy()
    try:
        yield
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry._entries.clear()
            registry._entries.update(entries)
        if len(sys.modules) != len(modules):
            for name in sys.modules.keys() - modules.keys():
                if name.startswith("crispseg_plugin_"):
                    del sys.modules[name]


def pytest_collection_finish() -> None:
    """What the imports made stays; else every full garbage collection walks through half a million objects."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.default_generator.manual_seed(0)  # torch.manual_seed formats the stack three times where there is no GPU


@pytest.fixture(autouse=True)
def _nothing_registered_stays() -> Iterator[None]:
    with unknown_again():  # other tests go through all models
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Nothing that is tested here may need the internet."""
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests have no network, but {address} was called")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", only_here)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Data sets, weights and reference outputs that are too large or not free for the repository."""
    named = os.environ.get("CRISPSEG_DATA")
    if not named:
        pytest.skip("CRISPSEG_DATA names no folder with these files")
    folder = Path(named).resolve()
    assert folder.is_dir(), f"CRISPSEG_DATA is {named}, which is no folder"
    return folder


@pytest.fixture(scope="session")
def refuses() -> Refuses:
    """`with refuses("resnet18"): ...`: a `CrispsegError` of one line that holds all these phrases."""
    from crispseg import CrispsegError

    @contextmanager
    def check(*phrases: str) -> Iterator[None]:
        with pytest.raises(CrispsegError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message, f"more than one line: {message}"
        for phrase in phrases:
            assert phrase in message

    return check


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One finished run of two epochs, for all tests that only look at it or copy its folder."""
    from training_runs import quietly, tiny

    return quietly(tiny(tmp_path_factory.mktemp("runs") / "tiny"))


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings end without pictures, page and temperature, which take half the time of a tiny one."""
    import numpy as np

    monkeypatch.setattr("crispseg.training.fit.draw_panels", lambda *_: np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr("crispseg.training.fit.write_report", lambda run, _: run.folder)
    monkeypatch.setattr("crispseg.training.fit.fitted_temperature", lambda *_: 1.0)


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """Chromium without a window, driven by Selenium."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed: pip install 'crispseg[dev]'"
    )
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no chromium and chromedriver in PATH: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*BROWSER_FLAGS, *flags, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            running.set_page_load_timeout(60)
            yield running
        finally:
            running.quit()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for each module."""
    with chromium() as running:
        yield running


WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")


@pytest.fixture(scope="module")
def webgpu_browser() -> Iterator[Any]:
    """A browser whose WebGPU is computed by the processor."""
    with chromium(*WEBGPU) as running:
        yield running
