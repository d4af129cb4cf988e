"""Downloading data sets, from a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import io
import re
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dataset_trees import (
    make_ade20k,
    make_cityscapes,
    make_coco_stuff,
    make_voc2012,
    public_nuclei,
    write_lists,
)

from crispseg import CrispsegError
from crispseg.cli.main import main
from crispseg.data import download
from crispseg.data import download as archives
from crispseg.data.catalogue import Archive, Entry, catalogue
from crispseg.data.download import fetch, unpack

# ---------------------------------------------------------------------------------------------------- the server


@dataclass
class Server:
    """Serves `files`; what is set below makes it misbehave."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    knows_ranges: bool = True
    sends_length: bool = True
    cut: list[int] = field(default_factory=list)
    """Bytes after which the next answers break off."""
    status: list[int] = field(default_factory=list)
    """Of the next answers, instead of a file."""
    asked: list[str | None] = field(default_factory=list)
    """The ranges that were asked for."""


class Handler(http.server.BaseHTTPRequestHandler):
    state: Server

    def do_GET(self) -> None:
        state, content = self.state, self.state.files.get(self.path)
        wanted = self.headers.get("Range")
        state.asked.append(wanted)
        if state.status or content is None:
            self.send_error(state.status.pop(0) if state.status else 404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and state.knows_ranges else 0  # type: ignore[index]
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if wanted and state.knows_ranges else 200)
        if wanted and state.knows_ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if state.sends_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + state.cut.pop(0) if state.cut else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE", 0.001)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Handler.state = Server(f"http://127.0.0.1:{running.server_port}")
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield Handler.state
        running.shutdown()


def quiet(what: str, done: int, total: int | None) -> None:
    pass


def zipped(**files: str) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return memory.getvalue()


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


def serve(server: Server, content: bytes, name: str = "x.zip", checked: bool = True) -> Archive:
    server.files[f"/{name}"] = content
    return Archive(f"{server.address}/{name}", hashlib.md5(content).hexdigest() if checked else None)


CONTENT = zipped(a="a" * 5000, b__c="c")

# ------------------------------------------------------------------------------------------------------- fetching


@pytest.mark.parametrize("knows_ranges", [True, False])
@pytest.mark.parametrize("sends_length", [True, False])
def test_a_file_comes_whole(knows_ranges: bool, sends_length: bool, server: Server, tmp_path: Path) -> None:
    server.knows_ranges, server.sends_length = knows_ranges, sends_length
    archive = serve(server, CONTENT)
    seen: list[tuple[str, int, int | None]] = []
    path = fetch(archive, tmp_path, lambda *step: seen.append(step))
    assert path == tmp_path / "x.zip" and path.read_bytes() == CONTENT and [*tmp_path.iterdir()] == [path]
    total = len(CONTENT) if sends_length else None
    assert seen[0] == ("Downloading x.zip", len(CONTENT), total)
    assert seen[-1] == ("Verifying x.zip", len(CONTENT), len(CONTENT))
    assert fetch(archive, tmp_path, quiet) == path and server.asked == [None]  # verified, and not asked for again


def test_an_interrupted_download_goes_on_where_it_broke_off(server: Server, tmp_path: Path, refuses: Any) -> None:
    """By itself, and in a later call where the server brings nothing for too long."""
    archive = serve(server, CONTENT)
    server.cut = [700, 0, 0, 0, 0, 0]
    with refuses(archive.url, "broke off after 700 bytes", "run the same command again, it goes on from there"):
        fetch(archive, tmp_path, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip.part"]
    server.cut, server.asked = [1000, 2500], []
    assert fetch(archive, tmp_path, quiet).read_bytes() == CONTENT
    assert server.asked == ["bytes=700-", "bytes=1700-", "bytes=4200-"]


@pytest.mark.parametrize(("part", "again"), [(CONTENT, 0), (CONTENT + b"!" * 7, 1), (b"of another file" * 999, 0)])
def test_a_part_that_is_complete_or_does_not_fit(part: bytes, again: int, server: Server, tmp_path: Path) -> None:
    """A server that knows no parts starts over by itself."""
    server.knows_ranges = part.startswith(CONTENT)
    (tmp_path / "x.zip.part").write_bytes(part)
    assert fetch(serve(server, CONTENT), tmp_path, quiet).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(part)}-", *[None] * again]


def test_a_wrong_checksum(server: Server, tmp_path: Path, refuses: Any) -> None:
    archive = replace(serve(server, CONTENT), md5="0" * 32)
    with refuses(archive.url, hashlib.md5(CONTENT).hexdigest(), "0" * 32, "was removed, run the same command again"):
        fetch(archive, tmp_path, quiet)
    (tmp_path / "x.zip.part").write_bytes(b"!" * 1000)  # the file changed meanwhile
    with refuses("MD5", "was removed"):
        fetch(archive, tmp_path, quiet)
    assert not [*tmp_path.iterdir()]
    (tmp_path / "x.zip").write_bytes(CONTENT)  # one that the user has put there stays
    with refuses(f"{tmp_path}/x.zip has the MD5", "remove it"):
        fetch(archive, tmp_path, quiet)
    assert (tmp_path / "x.zip").read_bytes() == CONTENT


def test_without_a_checksum_the_archive_has_to_end_well(server: Server, tmp_path: Path, refuses: Any) -> None:
    with refuses(f"has {len(CONTENT):,} bytes now, not 17"):
        fetch(replace(serve(server, CONTENT), size=17), tmp_path, quiet)
    assert fetch(serve(server, CONTENT, checked=False), tmp_path, quiet).read_bytes() == CONTENT
    with refuses("y.zip", "is no complete zip", "was removed"):
        fetch(serve(server, CONTENT[:1000], "y.zip", checked=False), tmp_path, quiet)


def test_servers_that_refuse(server: Server, tmp_path: Path, refuses: Any) -> None:
    with refuses(f"{server.address}/gone.zip", "404", "by hand", f"{tmp_path}/gone.zip"):
        fetch(Archive(f"{server.address}/gone.zip"), tmp_path, quiet)
    assert len(server.asked) == 1
    archive = serve(server, CONTENT)
    server.status = [503, 500, 429]  # may pass
    assert fetch(archive, tmp_path, quiet).read_bytes() == CONTENT
    server.status = [503] * 5
    with refuses("broke off after 0 bytes (HTTP 503", "run the same command again"):
        fetch(serve(server, CONTENT, "z.zip"), tmp_path, quiet)
    with refuses("http://127.0.0.1:9/none.zip", "broke off after 0 bytes", "refused"):
        fetch(Archive("http://127.0.0.1:9/none.zip"), tmp_path, quiet)


def test_too_little_space(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    with refuses(str(tmp_path), "x.zip", "GB free"):
        fetch(serve(server, CONTENT), tmp_path, quiet)
    assert len(server.asked) == 1


@pytest.mark.parametrize("target", ["none/x.zip", "/dev/full"])  # which fail at opening and at closing
def test_a_part_that_cannot_be_written(target: str, server: Server, tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "x.zip.part").symlink_to(target)
    with refuses("cannot write", "x.zip.part", "No s", "choose another folder"):
        fetch(serve(server, b"small"), tmp_path, quiet)
    assert len(server.asked) == 1


# ------------------------------------------------------------------------------------------------------ unpacking


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_archives_are_unpacked_over_what_is_there(kind: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    for name in ("a.txt", "deep/b.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (tmp_path / f"x.{kind}").write_bytes(packed(source, kind))
    (target / "deep").mkdir(parents=True)
    (target / "deep" / "b.txt").write_text("old")
    (target / "kept.txt").write_text("kept")
    assert unpack(tmp_path / f"x.{kind}", target) == 2
    found = {path.relative_to(target).as_posix(): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert found == {"a.txt": "a.txt", "deep/b.txt": "deep/b.txt", "kept.txt": "kept"}


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
        unpack(path, target)
    outside = [file for file in tmp_path.rglob("*") if file.is_file() and not file.is_relative_to(target)]
    assert outside == [path] and not Path("/tmp/evil.txt").exists()


def test_what_is_in_the_way_of_a_file(tmp_path: Path, refuses: Any) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("d/x.txt", "x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "d").write_text("a file")
    with refuses("cannot put", "out/d/x.txt", "remove what is in the way"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["d"]


def test_links_are_not_made(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    assert unpack(tmp_path / "x.tar", tmp_path / "out") == 0 and not [*(tmp_path / "out").iterdir()]


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
@pytest.mark.parametrize("share", [0.0, 0.9])
def test_half_an_archive_gets_one_line(kind: str, share: float, tmp_path: Path, refuses: Any) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.bin").write_bytes(hashlib.sha512(b"x").digest() * 500)
    path = tmp_path / f"x.{kind}"
    content = packed(source, kind)
    path.write_bytes(content[: int(share * 20000) if kind == "tar" else int(share * len(content))])
    with refuses(str(path), "download it again"):
        unpack(path, tmp_path / "out")
    assert not [*(tmp_path / "out").iterdir()]


def test_a_flipped_bit_in_a_zip_is_found(tmp_path: Path, refuses: Any) -> None:
    content = bytearray(CONTENT)
    content[200] ^= 1
    (tmp_path / "x.zip").write_bytes(content)
    with refuses("x.zip", "CRC"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


# -------------------------------------------------------------------------------------------------- the command


MAKE = {
    "ade20k": (make_ade20k, "zip", {"train": 2, "val": 1}),
    "coco_stuff": (make_coco_stuff, "zip", {"train": 2, "val": 1}),
    "voc2012": (make_voc2012, "tar", {"train": 2, "val": 1}),
    "nuclei": (lambda root: public_nuclei(root.parent), "zip", {"train": 2, "val": 1}),  # which become the root
}


def entry_of(name: str, server: Server, folder: Path) -> Entry:
    """The catalogue's entry with tiny archives of this server, in the official layout."""
    make, kind, counts = MAKE[name]
    entry = catalogue()[name]
    make(folder / entry.root)  # type: ignore[operator]
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
    splits = {"train": ["b0123456789a", "c0123456789a"], "val": ["a0123456789a"]}
    monkeypatch.setattr("crispseg.data.free.LISTS", write_lists(tmp_path / "lists", "nuclei_", splits))
    server.cut = [300]
    out = tmp_path / "out"
    assert main(["data", "download", name, f"--out={out}"]) == 0
    shown = capsys.readouterr().out
    root = out / entry.root
    assert f"train: 2 images with masks in {root}, 2 as published" in shown and entry.licence in shown
    assert f"--data {name} --data.root {root}" in shown
    assert ("no checksum is published" in shown) == (name in ("coco_stuff", "nuclei"))
    assert not [path for path in out.rglob("*") if archives.is_archive(path) or path.suffix == ".part"]
    asked = len(server.asked)
    assert main(["data", "download", name, f"--out={out}"]) == 0
    assert len(server.asked) == asked  # it is there
    assert main(["data", "show", name, f"--data.root={root}", f"--out={tmp_path / 'sheet.png'}"]) == 0
    assert (tmp_path / "sheet.png").is_file()


def test_archives_that_lack_files(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = replace(entry_of("ade20k", server, tmp_path / "made"), counts={"train": 3, "val": 1})
    monkeypatch.setitem(catalogue(), "ade20k", entry)
    assert main(["data", "download", "ade20k", f"--out={tmp_path / 'out'}", "--keep_archives=true"]) == 2
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
    command(2, f"{tmp_path} is not it yet: 'train' has 2 of 2975 images")
    monkeypatch.setitem(catalogue(), "cityscapes", replace(catalogue()["cityscapes"], counts={"train": 2, "val": 1}))
    command(0, f"val: 1 images with masks in {tmp_path}, 1 as published")
    (tmp_path / "gtFine" / "val" / "lindau" / "lindau_000000_000019_gtFine_labelIds.png").unlink()
    command(2, "gtFine/val holds no files")


def test_names_that_cannot_be_downloaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "download", "voc2021", "--out=x"]) == 2
    assert "voc2012" in capsys.readouterr().err
    assert main(["data", "download", "folder", "--out=x"]) == 2
    assert "folder" in capsys.readouterr().err


def test_the_catalogue() -> None:
    """Checksums are where torchvision has them; what has none is a zip, whose files have their own."""
    from torchvision.datasets import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    assert catalogue()["voc2012"].archives[0].md5 == DATASET_YEAR_DICT["2012"]["md5"]
    assert catalogue()["voc2012"].archives[0].file == DATASET_YEAR_DICT["2012"]["filename"]
    assert catalogue()["sbd"].archives[0].md5 == SBDataset.md5 and catalogue()["sbd"].archives[0].url == SBDataset.url
    for entry in catalogue().values():
        for archive in entry.archives:
            assert archives.is_archive(Path(archive.file)) and archive.url.startswith("http")
            assert archive.file.endswith(".zip") if archive.md5 is None else re.fullmatch("[0-9a-f]{32}", archive.md5)
            assert archive.md5 is None or archive.source
        assert entry.archives or entry.get
        assert (entry.layout is None) == (entry.name == "sbd")
