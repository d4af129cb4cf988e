"""`predict_files` and `crispseg predict`: lists of images, `--resume`, `--shard`, what cannot be read."""

import csv
import os
import re
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from commands import Capture, error_of, output_of
from dataset_trees import photos
from PIL import Image
from training_runs import files, of_many_opinions

from crispseg.cli.main import main
from crispseg.errors import CrispsegWarning
from crispseg.inference import Segmentation, Segmenter
from crispseg.inference.image_files import named_images
from crispseg.io.images import read_mask, write_image
from crispseg.prediction import predict_files
from crispseg.prediction.job import shard_slice
from crispseg.prediction.outputs import LabelFiles
from crispseg.training.settings import training_config

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("a", "b", "c", "d", "sub/a", "sub/b", "sub/c")


@pytest.fixture(name="photos")
def _photos(tmp_path: Path) -> Path:
    return photos(tmp_path / "in", *(f"{name}.png" for name in NAMES))


@pytest.fixture
def whole(model: Path, photos: Path, tmp_path: Path) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    summary = predict_files(model, [photos], tmp_path / "whole")
    assert (summary.total, summary.done, summary.skipped, summary.failed, summary.objects) == (7, 7, 0, [], None)
    return contents(tmp_path / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_shards_slice_the_sorted_images(
    model: Path, photos: Path, whole: dict[str, bytes], tmp_path: Path, refuses: Any
) -> None:
    out = tmp_path / "out"
    counts = [predict_files(model, [photos], out, shard=f"{number}/3").total for number in (1, 2, 3)]
    assert counts == [3, 2, 2] and contents(out) == whole
    (out / "b.png").unlink()
    again = predict_files(model, [photos], out, shard="2/3")
    assert (again.done, again.skipped) == (2, 1) and contents(out) == whole
    for text in ("0/3", "4/3", "1", "1/0", "one/3", "-1/3"):
        with refuses("shard", text):
            shard_slice(text)


def test_the_same_command_resumes(
    model: Path, photos: Path, whole: dict[str, bytes], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    argv = ["predict", str(model), str(photos), "--out", str(out), "--resume"]
    written: list[str] = []
    write = LabelFiles.write
    with monkeypatch.context() as patch:

        def interrupted(self: LabelFiles, result: Segmentation) -> None:
            if len(written) == 3:
                raise KeyboardInterrupt
            written.append(result.name)
            write(self, result)

        patch.setattr(LabelFiles, "write", interrupted)
        assert main(argv) == 130
    assert "3 of 7" in capsys.readouterr().err
    (out / "b_overlay.png").unlink()
    times = {file: file.stat().st_mtime_ns for file in out.rglob("*.png")}
    assert f"7 of 7 images segmented into {out}, 2 of them earlier" in output_of(capsys, *argv)
    again = {file.name for file, time in times.items() if file.stat().st_mtime_ns == time}
    assert again == {f"{name}{end}.png" for name in "ac" for end in ("", "_overlay")} and contents(out) == whole
    assert "7 of 7 images segmented" in output_of(capsys, *argv)


def test_a_damaged_result_is_made_again(model: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(model, [photos], out)
    whole = contents(out)
    damaged = out / "a.png"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    with pytest.warns(CrispsegWarning, match="are replaced"):
        predict_files(model, [photos], out, resume=True)
    assert contents(out) == whole


def test_a_list_and_what_cannot_be_read(model: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copy(photos / "a.png", tmp_path / "e.png")
    (photos / "d.png").write_bytes(b"no picture")
    (photos / "list.txt").write_text(f"a.png\nsub/a.png\n\n a.png \nmissing.png\nd.png\n{tmp_path / 'e.png'}\n")
    out = tmp_path / "out"
    argv = ["predict", str(model), str(photos / "list.txt"), f"--out={out}", "--resume"]
    for before in ("", ", 3 of them earlier"):
        assert main(argv) == 2
        captured = capsys.readouterr()
        assert f"3 of 5 images segmented into {out}{before}\n" in captured.out
        assert all(name in captured.err for name in ("missing.png", "d.png", "2 of 5 images"))
    assert set(contents(out)) == {f"{name}{end}.png" for name in ("a", "sub/a", "e") for end in ("", "_overlay")}
    for name in ("d", "missing"):
        shutil.copy(photos / "b.png", photos / f"{name}.png")
    assert "5 of 5 images segmented" in output_of(capsys, *argv)


@pytest.mark.parametrize("line", ["[" * 5000, "~unknown/a.png"])
def test_a_list_with_a_name_that_no_file_has(line: str, tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "list.txt").write_text(f"a.png\n{line}\n")
    with refuses(f"{tmp_path / 'list.txt'}: ", "check the path"):
        named_images([tmp_path / "list.txt"])


def test_threads_that_write_leave_the_warning_filters_alone(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They belong to the whole program: warnings of other threads would be lost."""
    entered, enter = [], warnings.catch_warnings.__enter__

    def noted(filters: Any) -> Any:
        entered.append(threading.current_thread())
        return enter(filters)

    monkeypatch.setattr(warnings.catch_warnings, "__enter__", noted)
    for extras in ({"confidence": True}, {}):  # the second one removes the files of the first
        predict_files(model, [photos], tmp_path / "out", **extras)
    assert {*entered} <= {threading.main_thread()}


def replaced(path: Path) -> None:
    """Another image of that name, size and time of change."""
    before = path.stat()
    with Image.open(path) as image:
        flipped = np.asarray(image)[::-1]
    Image.fromarray(flipped).save(path)
    path.write_bytes(path.read_bytes().ljust(before.st_size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize("ways", [{"format": "voc"}, {"tiles": 128}])
def test_results_of_something_else_are_made_again(ways: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    if "tiles" in ways:
        pytest.importorskip("rasterio")
        for path in sorted((photos / "sub").iterdir()):
            write_image(path.with_suffix(".tif"), np.asarray(Image.open(path)).repeat(4, axis=0))
            path.unlink()
    network = of_many_opinions(21 if "format" in ways else 3)
    other, out = tmp_path / "other", tmp_path / "out"
    for folder, shift in ((tmp_path / "one", 0), (other, 1)):
        network.classifier.bias.data += shift * torch.arange(len(network.classifier.bias))
        network.save_pretrained(folder)

    def predict(run: Path = tmp_path / "one", **options: Any) -> int:
        return predict_files(run, [photos / "sub"], out, **ways, resume=True, **options).skipped

    predict()
    assert predict() == 3
    first = sorted(photos.glob("sub/a.*"))[0]
    replaced(first)
    for changed, options, kept in (
        (first, {}, 2),
        (other, {"run": other}, 0),
        (other, {"run": other, "protocol": "ddsm-ms"}, 0),
    ):
        with pytest.warns(CrispsegWarning, match=f"{3 - kept} images .* are replaced"):
            assert predict(**options) == kept, changed
        assert predict(**options) == 3
        fresh = predict_files(
            options.pop("run", tmp_path / "one"), [photos / "sub"], tmp_path / "fresh", **ways, **options
        )
        assert fresh.done == 3
        expected = {name: content for name, content in contents(tmp_path / "fresh").items() if name != "objects.json"}
        assert contents(out) == expected


def test_a_stack_is_segmented_page_by_page(model: Path, photos: Path, tmp_path: Path) -> None:
    """Like files of its pages; pages that may be channels are left out."""
    grey = [np.array(Image.open(photos / f"{name}.png").convert("L"))[:40, :60] for name in "abc"]
    folder, out = tmp_path / "stacks", tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    tifffile.imwrite(folder / "sub/stack.tif", np.stack(grey), imagej=True, metadata={"axes": "ZYX"})
    write_image(folder / "plane.png", grey[1])
    options: dict[str, Any] = {"objects": "class 1", "pixel_size": "2um"}
    done = predict_files(model, [folder], out, **options)
    assert (done.total, done.done) == (4, 4)
    for ending in (".png", "_objects.png"):
        mask, other = (read_mask(out / f"{name}{ending}") for name in ("plane", "sub/stack_page2"))
        np.testing.assert_array_equal(mask, other)
    for name in ("objects", "summary"):
        rows = list(csv.DictReader((out / f"{name}.csv").open(newline="")))
        plane = [{**row, "page": "2", "image": "sub/stack.tif"} for row in rows if row["image"] == "plane.png"]
        assert plane == [row for row in rows if row["page"] == "2"]
        assert {(row["image"], row["page"]) for row in rows} >= {("sub/stack.tif", page) for page in "123"}
    rows = list(csv.DictReader((out / "sub/stack_page2_objects.csv").open(newline="")))
    assert {row["page"] for row in rows} == {"2"}
    assert predict_files(model, [folder], out, resume=True, **options).skipped == 4
    tifffile.imwrite(folder / "sub/stack.tif", np.stack(grey), photometric="minisblack")
    with pytest.warns(CrispsegWarning, match=r"stack\.tif has several pages .* save each"):
        done = predict_files(model, [folder], tmp_path / "other")
    assert (done.total, done.done) == (2, 1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("b.png", {"resume": True}),
        ("b_objects.csv", {"objects": "class 1"}),
        ("objects.json", {"objects": "class 1"}),
        ("report.html", {"objects": "class 1"}),
        ("shares.csv", {"shares": True}),
    ],
)
def test_files_of_the_user_are_not_overwritten(
    name: str, options: dict[str, Any], model: Path, photos: Path, tmp_path: Path, refuses: Any
) -> None:
    file = tmp_path / "mine" / name
    file.parent.mkdir()
    shutil.copy(photos / "a.png", file)
    before, images = contents(file.parent), [photos / "a.png", photos / "b.png"]
    with refuses(str(file), "choose another folder"):
        predict_files(model, images, file.parent, **options)
    assert contents(file.parent) == before
    file.unlink()
    for _ in range(2):  # its own results are
        assert predict_files(model, images, file.parent, **options).done == 2


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--resume"], "resume"),
        (["--shard=1/2"], "shard"),
        (["--shard=3/2", "--out=x"], "3/2"),
        (["--out=x", "--polygons"], "polygons"),
        (["--out=x", "--tolerance=1.5"], "--tolerance is for polygons; give a format"),
        (["--out=x", "--tolerance=1.5", "--format=voc"], "--tolerance is for polygons; give a format"),
        (["--out=x", "--tolerance=-1", "--format=svg"], "--tolerance is -1; give a number greater than or equal to 0"),
        (["--out=x", "--square", "--format=svg"], "--square needs a tolerance"),
        (["--out=x", "--format=cvatt"], "did you mean 'cvat'?"),
        (["--out=x", "--format=cvat", "--shard=1/2"], "leave out shard"),
        (["--out=x", "--objects_border=border"], "objects_border"),
        (["--out=x", "--objects_min_size=5"], "objects_min_size"),
        (["--out=x", "--objects=nucleus", "--objects_min_size=-1"], "objects_min_size"),
        (["--out=x", "--objects=[nucleus,nucleus]"], "different classes"),
        (["--out=x", "--objects=[]"], "different classes"),
        (["--out=x", "--objects=nucleus", "--format=voc"], "format of a server conflicts with objects"),
        (["--out=x", "--format=panoptic"], "panoptic need objects"),
        (["--out=x", "--objects=nucleus", "--format=panoptic", "--resume"], "format panoptic conflicts with resume"),
        (["--out=x", "--tiles=64"], "tiles is 64; give a number greater than or equal to 128"),
        (["--out=x", "--shares", "--resume"], "shares conflicts with resume"),
        (["--fast", "--precision=fp32"], "fast conflicts with precision"),
        (["--fast", "--backend=openvino"], "fast conflicts with backend"),
        (["--fast", "--compile=true"], "fast conflicts with compile"),
        (["--out=x", "--objects=nucleus", "--pixel_size=0.5"], "0.5um"),
    ],
)
def test_flags_that_make_no_sense(
    flags: list[str], named: str, photos: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named in error_of(capsys, "predict", "nuclei", photos, *flags)
    assert not files(tmp_path / "x")


def test_threads_that_write_keep_the_order(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threads in (1, 4):
        monkeypatch.setattr("crispseg.prediction.files.torch.get_num_threads", lambda count=threads: count)
        predict_files(model, photos, tmp_path / str(threads), objects="class 1", shares=True, confidence=True)
    assert contents(tmp_path / "1") == contents(tmp_path / "4")
    assert (tmp_path / "4/objects.json").is_file()


def test_confidence_is_the_largest_probability(model: Path, photos: Path, tmp_path: Path, refuses: Any) -> None:
    out = tmp_path / "out"
    assert main(["predict", str(model), str(photos), f"--out={out}", "--confidence"]) == 0
    sure, labels = (np.asarray(Image.open(out / f"sub/a{end}.png")) for end in ("_confidence", ""))
    probabilities = Segmenter(model)(photos / "sub/a.png").probabilities()
    assert sure.dtype == np.uint8 and np.array_equal(labels, probabilities.argmax(0))
    assert abs(sure / 255 - probabilities.max(0)).max() < 0.01
    tiles = Segmenter(model, tile=128)(np.zeros((150, 140, 3), np.uint8)).confidence()
    assert tiles.shape == (150, 140) and tiles.min() > 255 / len(probabilities) - 1
    again = predict_files(model, photos, out, confidence=True, resume=True)
    assert again.skipped == len(NAMES)
    predict_files(model, photos, out)  # without confidence: those of an earlier prediction are outdated
    assert not any("confidence" in name for name in files(out))
    with refuses("confidence", "format of a server"):
        predict_files(model, photos, tmp_path / "other", confidence=True, format="voc")


def test_a_new_output_is_one_file(model: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    code = re.search(r"`edges\.py`:\n\n```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "edges.py").write_text(code[1])
    out, plugin = tmp_path / "out", ["--plugins", str(tmp_path / "edges.py")]
    argv = ["predict", str(model), str(photos / "sub"), f"--out={out}", *plugin]
    output_of(capsys, *argv, "--outputs=edges")
    assert files(out) == {f"{name}{end}.png" for name in "abc" for end in ("", "_overlay", "_edges")}
    labels, edges = (np.asarray(Image.open(out / f"a{end}.png")) for end in ("", "_edges"))
    assert np.array_equal(edges[1:] > 0, labels[1:] != labels[:-1]) and edges.any()
    assert "3 of them earlier" in output_of(capsys, *argv, "--outputs=edges", "--resume")
    (out / "b_edges.png").unlink()
    assert "2 of them earlier" in output_of(capsys, *argv, "--outputs=edges", "--resume")
    output_of(capsys, *argv)  # those of an earlier prediction are outdated
    assert files(out) == {f"{name}{end}.png" for name in "abc" for end in ("", "_overlay")}
    assert "unknown output 'edge'; did you mean 'edges'?" in error_of(capsys, *argv, "--outputs=edge")
    assert "format of a server conflicts with outputs" in error_of(capsys, *argv, "--outputs=edges", "--format=voc")


def test_formats_that_cannot_be_read_are_reported(model: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    unread = [f"x{suffix}" for suffix in (".psd", ".cr3", ".pcx", ".czi", ".nd2", ".lif", ".ndpi")]
    for name in (*(f"sub/{name}" for name in unread), "a.dng", "notes.md"):  # a.dng is the raw photo of a.png
        (photos / name).write_bytes(b"II*\0")
    out = tmp_path / "out"
    assert main(["predict", str(model), str(photos), f"--out={out}"]) == 2
    printed = capsys.readouterr()
    assert f"7 of 14 images segmented into {out}" in printed.out
    for name in unread:
        assert f"left out: {photos / 'sub' / name} has a format that cannot be read" in printed.err
    assert "a.dng" not in printed.err and "notes.md" not in printed.err
    assert main(["predict", str(model), str(photos / "a.dng"), f"--out={tmp_path / 'raw'}"]) == 2
    assert "a.dng is not an image in a known format" in capsys.readouterr().err


def test_paths_begin_at_home(model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, tmp_path / "model")
    assert predict_files("~/model", "~/in/sub", "~/mine").out == tmp_path / "mine"
    assert main(["predict", "~/model", "~/in/a.png", "--out=~/one"]) == 0
    assert Segmenter("~/model")("~/in/a.png").save("~/saved")[0] == tmp_path / "saved/a.png"
    assert len(files(tmp_path / "mine")) == 6 and len(files(tmp_path / "one")) == 2 and not Path("~").exists()
    settings = training_config({"data": {"images": "~/in", "masks": "~/masks"}, "out": "~/run"})
    assert settings.out == tmp_path / "run" and str(settings.data.masks) == str(tmp_path / "masks")
