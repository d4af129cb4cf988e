"""Downloading data sets, from a server on this machine."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dataset_trees import (
    make_ade20k,
    make_cityscapes,
    make_coco_stuff,
    make_voc2012,
)

from crispseg import CrispsegError
from crispseg.cli.main import main
from crispseg.data.catalogue import Archive, Entry, catalogue
from crispseg.data.download import fetch


@dataclass
class Server:
    """Serves `files`; what is in `cut` is how many bytes of the next answers come."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    state: Server

    def do_GET(self) -> None:
        self.state.asked.append(self.path)
        if (content := self.state.files.get(self.path)) is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.state.cut.pop(0)] if self.state.cut else content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Handler.state = Server(f"http://127.0.0.1:{running.server_port}")
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield Handler.state
        running.shutdown()


def packed(folder: Path, kind: str) -> bytes:
    """All below a folder as a zip, tar or tgz."""
    memory = io.BytesIO()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if kind == "zip":
        with zipfile.ZipFile(memory, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(fileobj=memory, mode="w:gz" if kind == "tgz" else "w") as tar:
            for file in files:
                tar.add(file, file.relative_to(folder))
    return memory.getvalue()


CONTENT = hashlib.sha512(b"x").digest() * 500


@pytest.mark.parametrize("checked", [True, False])
def test_an_archive_is_downloaded_once(checked: bool, server: Server, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.bin").write_bytes(CONTENT)
    server.files["/x.zip"] = content = packed(tmp_path / "in", "zip")
    archive = Archive(f"{server.address}/x.zip", hashlib.md5(content).hexdigest() if checked else None)
    for _ in range(2):
        assert fetch(archive, tmp_path / "out").read_bytes() == content
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"x.zip", "a.bin"}
    assert server.asked == ["/x.zip"]


def test_downloads_that_fail(server: Server, tmp_path: Path, refuses: Any) -> None:
    """One that is cut off, one that is not there, and a server that does not answer; nothing is left of them."""
    server.files["/x.zip"], server.cut = CONTENT, [700]
    for address in (f"{server.address}/x.zip", f"{server.address}/gone.zip", "http://127.0.0.1:9/none.zip"):
        with refuses(address, "the download failed", "run the same command again", str(tmp_path)):
            fetch(Archive(address), tmp_path)
        assert not [*tmp_path.iterdir()]


def test_a_wrong_checksum(server: Server, tmp_path: Path, refuses: Any) -> None:
    server.files["/x.zip"] = CONTENT
    with refuses("x.zip", hashlib.md5(CONTENT).hexdigest(), "0" * 32):
        fetch(Archive(f"{server.address}/x.zip", "0" * 32), tmp_path)
    assert not [*tmp_path.iterdir()]


# ------------------------------------------------------------------------------------------------------ unpacking


def unpack(path: Path, folder: str) -> None:
    """Unpack an archive that is there into a folder next to it."""
    fetch(Archive(f"http://127.0.0.1:9/{path.name}", folder=folder), path.parent)


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_is_written_outside(kind: str, name: str, tmp_path: Path) -> None:
    path, target = tmp_path / f"x.{kind}", tmp_path / "deep" / "out"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "evil")
    else:
        with tarfile.open(path, "w") as tar:
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
    with suppress(CrispsegError):
        unpack(path, "deep/out")
    outside = [file for file in tmp_path.rglob("*") if file.is_file() and not file.is_relative_to(target)]
    assert outside == [path] and not Path("/tmp/evil.txt").exists()


# -------------------------------------------------------------------------------------------------- the command


MAKE = {
    "ade20k": (make_ade20k, "zip", {"train": 2, "val": 1}),
    "coco_stuff": (make_coco_stuff, "zip", {"train": 2, "val": 1}),
    "voc2012": (make_voc2012, "tar", {"train": 2, "val": 1}),
}


def entry_of(name: str, server: Server, folder: Path) -> Entry:
    """The catalogue's entry with tiny archives of this server, in the official layout."""
    make, kind, counts = MAKE[name]
    entry = catalogue()[name]
    make(folder / entry.root)
    found = []
    for archive in entry.archives:
        below = folder / archive.folder
        if archive.file in ("train2017.zip", "val2017.zip"):  # each of one folder among others
            memory = io.BytesIO()
            with zipfile.ZipFile(memory, "w") as file:
                for image in sorted((below / archive.file.removesuffix(".zip")).iterdir()):
                    file.write(image, image.relative_to(below))
            content = memory.getvalue()
        else:
            content = packed(below, kind)
        known = {"md5": hashlib.md5(content).hexdigest()} if archive.md5 else {}
        server.files[f"/{archive.file}"] = content
        found.append(Archive(f"{server.address}/{archive.file}", folder=archive.folder, **known))
    return replace(entry, archives=tuple(found), counts=counts)


@pytest.mark.parametrize("name", MAKE)
def test_download_and_use(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = entry_of(name, server, tmp_path / "made")
    monkeypatch.setitem(catalogue(), name, entry)
    out = tmp_path / "out"
    assert main(["data", "download", name, f"--out={out}"]) == 0
    shown = capsys.readouterr().out
    root = out / entry.root
    assert f"train: 2 images in {root}, 2 as published" in shown and entry.licence in shown
    assert f"--data {name} --data.root {root}" in shown
    assert not [path for path in out.rglob("*") if path.suffix in (".zip", ".tar", ".tgz")]
    asked = len(server.asked)
    assert main(["data", "download", name, f"--out={out}"]) == 0
    assert len(server.asked) == asked  # it is there


def test_archives_that_lack_files(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = replace(entry_of("ade20k", server, tmp_path / "made"), counts={"train": 3, "val": 1})
    monkeypatch.setitem(catalogue(), "ade20k", entry)
    assert main(["data", "download", "ade20k", f"--out={tmp_path / 'out'}"]) == 2
    assert "'train' has 2 of 3 images" in capsys.readouterr().err
    assert (tmp_path / "out" / "ADEChallengeData2016.zip").is_file()


def test_where_registration_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says where to go, and checks the folder."""

    def command(status: int, *phrases: str) -> None:
        assert main(["data", "download", "cityscapes", f"--out={tmp_path}"]) == status
        shown = capsys.readouterr()
        assert all(phrase in (shown.err if status else shown.out) for phrase in phrases)

    command(2, "cannot be downloaded from here", "registration", "https://www.cityscapes-dataset.com", "gtFine")
    make_cityscapes(tmp_path)
    command(2, "currently, 'train' has 2 of 2975 images")
    monkeypatch.setitem(catalogue(), "cityscapes", replace(catalogue()["cityscapes"], counts={"train": 2, "val": 1}))
    command(0, f"val: 1 images in {tmp_path}, 1 as published")
    (tmp_path / "gtFine" / "val" / "lindau" / "lindau_000000_000019_gtFine_labelIds.png").unlink()
    command(2, "gtFine/val contains no files")


def test_names_that_cannot_be_downloaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "download", "voc2021", "--out=x"]) == 2
    assert "voc2012" in capsys.readouterr().err
    assert main(["data", "download", "folder", "--out=x"]) == 2
    assert "folder" in capsys.readouterr().err


def test_the_catalogue() -> None:
    """Checksums are where torchvision has them; what has none is a zip, whose files have their own."""
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    assert catalogue()["voc2012"].archives[0].md5 == DATASET_YEAR_DICT["2012"]["md5"]
    assert catalogue()["voc2012"].archives[0].file == DATASET_YEAR_DICT["2012"]["filename"]
    for entry in catalogue().values():
        for archive in entry.archives:
            assert archive.file.endswith((".zip", ".tar", ".tgz")) and archive.url.startswith("http")
            assert archive.file.endswith(".zip") if archive.md5 is None else re.fullmatch("[0-9a-f]{32}", archive.md5)
        assert entry.archives or entry.get
