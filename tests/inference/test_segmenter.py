import copy
import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import nn
from training_runs import varied

from crispseg import CrispsegError, SegmentationModel, create_model
from crispseg.data.dataset import Sample
from crispseg.data.transforms import eval_transform
from crispseg.inference.segmenter import WORKERS, Segmenter, as_batch

NAMES = ("road", "sky", "tree", "car", "pole")
PALETTE = ((128, 64, 128), (70, 130, 180), (60, 130, 40), (20, 20, 160), (250, 170, 30))


def build(in_chans: int = 3) -> SegmentationModel:
    model = varied("sfnet", 5, width=16, in_chans=in_chans)
    model.info = dataclasses.replace(model.info, class_names=NAMES, palette=PALETTE)
    return model


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    return build()


@pytest.fixture(scope="module")
def segmenter(model: SegmentationModel) -> Segmenter:
    return Segmenter(model, "cpu")


def picture(height: int = 48, width: int = 70, seed: int = 0) -> np.ndarray:
    """Noise in blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)[:height, :width].copy()


def four_channels(height: int = 48, width: int = 70) -> np.ndarray:
    return np.dstack([picture(height, width), picture(height, width, seed=1)[..., :1]])


def expected(model: SegmentationModel, image: np.ndarray) -> torch.Tensor:
    """Logits `(C, H, W)` by the way of evaluation."""
    sample = Sample(image, np.zeros(image.shape[:2], np.uint8), "")
    batch = eval_transform(model.info.mean, model.info.std, model.info.in_chans)(sample)[0][None]
    with torch.no_grad():
        return model(batch)[0]


def assert_labels(labels: np.ndarray, logits: torch.Tensor) -> None:
    """Equal, but for pixels that two classes share to within rounding."""
    assert labels.dtype == np.uint8 and labels.shape == tuple(logits.shape[1:])
    assert len(np.unique(labels)) > 1  # a constant prediction would show nothing
    best = logits.max(0).values
    chosen = logits.gather(0, torch.from_numpy(labels).long()[None])[0]
    assert (best - chosen).max() <= 1e-4 * logits.abs().max()


@pytest.mark.parametrize("size", [(48, 70), (33, 57), (171, 230), (5, 7), (1, 90), (31, 32)])
def test_labels_are_those_of_the_model(model: SegmentationModel, segmenter: Segmenter, size: tuple[int, int]) -> None:
    """Images of fewer than 32 pixels are extended by their edge."""
    image = picture(*size)
    extended = np.pad(image, [(0, max(0, 32 - length)) for length in size] + [(0, 0)], mode="edge")
    result, logits = segmenter(image), expected(model, extended)[:, : size[0], : size[1]]
    if min(size) >= 32:
        assert_labels(result.labels, logits)
        assert (result.labels == logits.argmax(0).numpy()).mean() >= 0.999
    probabilities = result.probabilities()
    assert probabilities.dtype == np.float32 and probabilities.shape == (5, *size)
    np.testing.assert_allclose(probabilities, logits.softmax(0), atol=1e-4)
    assert (probabilities.argmax(0) == result.labels).all()
    assert result.image.shape == result.overlay().shape == (*size, 3)


@pytest.mark.parametrize("size", [(48, 70), (5, 90)])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_pixels_are_normalised_as_in_evaluation(in_chans: int, size: tuple[int, int]) -> None:
    """The bits are equal, of views too, and the caller's array stays as it is."""
    info = build(in_chans).info
    array = picture(*size)
    before, read_only = array.copy(), array.copy()
    read_only.setflags(write=False)
    for image in (array, read_only, array[::-1, ::-1]):
        extended = np.pad(image, [(0, max(0, 32 - length)) for length in size] + [(0, 0)], mode="edge")
        sample = Sample(extended, np.zeros(extended.shape[:2], np.uint8), "")
        wanted = eval_transform(info.mean, info.std, in_chans)(sample)[0]
        assert torch.equal(as_batch(image, info, torch.device("cpu"))[0], wanted)
    assert np.array_equal(array, before)


def test_grey_models_see_the_mean_of_the_channels(tmp_path: Path) -> None:
    model = build(in_chans=1)
    segmenter = Segmenter(model)
    assert_labels(segmenter(picture()).labels, expected(model, picture()))
    grey = picture()[..., 0]
    image = np.repeat(grey[..., None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    wanted = segmenter(image)
    for result in segmenter([grey, Image.fromarray(grey), tmp_path / "grey.png"]):
        assert np.array_equal(result.image, image) and np.array_equal(result.labels, wanted.labels)


def test_four_channels(tmp_path: Path) -> None:
    model, image = build(in_chans=4), four_channels()
    segmenter = Segmenter(model)
    for suffix in (".png", ".tif"):
        Image.fromarray(image).save(tmp_path / f"street{suffix}")
    wanted = expected(model, image)
    for result in segmenter([image, Image.fromarray(image), tmp_path / "street.png", tmp_path / "street.tif"]):
        assert_labels(result.labels, wanted)
        assert np.array_equal(result.image, image[..., :3])
        assert result.overlay().shape == result.image.shape
    other = image.copy()
    other[..., 3] = 255 - other[..., 3]
    assert not np.array_equal(segmenter(other).labels, segmenter(image).labels)  # it sees the fourth
    for source in (image[..., :3], image[..., 0], Image.fromarray(image[..., :3])):
        with pytest.raises(CrispsegError, match="4"):
            segmenter(source)


WRONG: list[Any] = [np.zeros((40, 40, 5), np.uint8), np.zeros((40, 40, 3), int), np.full((40, 40), np.nan)]
WRONG += [np.zeros((0, 40, 3), np.uint8), Image.new("RGB", (0, 5)), None, Path("missing.png")]


@pytest.mark.parametrize("source", WRONG)
def test_other_sources_are_refused(segmenter: Segmenter, source: Any) -> None:
    """When their turn comes."""
    with pytest.raises(CrispsegError):
        segmenter(source)
    stream = segmenter.stream([picture(), source])
    next(stream)
    with pytest.raises(CrispsegError):
        next(stream)


def test_stream_reads_a_few_ahead_and_in_order(segmenter: Segmenter) -> None:
    asked: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for index in range(8):
            asked.append(index)
            yield picture(32 + index, 40)

    stream = segmenter.stream(frames())
    assert asked == []
    assert next(stream).labels.shape == (32, 40)
    assert asked == [*range(WORKERS + 1)]
    assert [result.labels.shape[0] for result in stream] == [*range(33, 40)]


def test_floats_and_tensors_are_images_too(segmenter: Segmenter) -> None:
    image = picture()
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    for source in (image / 255, np.float32(image / 255), tensor, tensor / 255):
        assert np.array_equal(segmenter(source).image, image)


def test_save_to_a_file(segmenter: Segmenter, tmp_path: Path) -> None:
    labels, overlay = segmenter(picture()).save(tmp_path / "new" / "mine.png")
    assert (labels, overlay) == (tmp_path / "new/mine.png", tmp_path / "new/mine_overlay.png")
    assert labels.is_file() and overlay.is_file()
    (tmp_path / "folder.png").mkdir()
    assert segmenter(picture()).save(tmp_path / "folder.png")[0] == tmp_path / "folder.png" / "image.png"


def test_several_images_give_a_list(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any
) -> None:
    images = np.stack([picture(), picture(seed=1)])
    (tmp_path / "in").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"in/{number}.png")
    wanted = [result.labels for result in segmenter([*images])]
    folder = tmp_path / "in"
    for several in (images, torch.from_numpy(images).permute(0, 3, 1, 2), folder, f"{folder}/*.png"):
        assert all(np.array_equal(ours.labels, mask) for ours, mask in zip(segmenter(several), wanted, strict=True))
    for single in (images[0], torch.from_numpy(images[0]).permute(2, 0, 1), Image.fromarray(images[0])):
        assert [result.labels.tolist() for result in segmenter.stream(single)] == [wanted[0].tolist()]
    assert [result.name for result in segmenter(tmp_path)] == [str(Path("in/0")), str(Path("in/1"))]
    monkeypatch.chdir(folder)
    with refuses("path", "empty"):
        segmenter("")
    with refuses("*.jpg"):
        segmenter("*.jpg")


def test_save_never_replaces_the_image(segmenter: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "street.png"
    Image.fromarray(picture()).save(path)
    before = path.read_bytes()
    result = segmenter(path)
    with pytest.raises(CrispsegError, match=f"{path} is not a result"):
        result.save(tmp_path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    result.name = "labels"
    for _ in range(2):  # its own results are
        assert result.save(tmp_path)[0] == tmp_path / "labels.png"


@pytest.mark.parametrize("name", ["a.png", "a_overlay.png", "a_objects.png", "a_objects.csv"])
def test_save_never_replaces_files_of_the_user(name: str, segmenter: Segmenter, tmp_path: Path, refuses: Any) -> None:
    result = segmenter(picture())
    result.name = "a"
    file = tmp_path / name
    Image.fromarray(picture()).save(file, "PNG")
    before = file.read_bytes()
    save = result.objects(result.label_set.names[1]).save if "objects" in name else result.save
    with refuses(str(file), "choose another folder"):
        save(tmp_path)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]
    file.unlink()
    for _ in range(2):
        save(tmp_path)


def test_the_model_stays_as_it_is(model: SegmentationModel) -> None:
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    Segmenter(model)(picture())
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.state_dict().keys() == before.keys()
    model.eval()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions_of_the_program_and_the_model(
    dtype: torch.dtype, model: SegmentationModel, segmenter: Segmenter
) -> None:
    expected = segmenter(picture()).labels
    results = [Segmenter(copy.deepcopy(model).to(dtype))(picture())]
    torch.set_default_dtype(dtype)
    try:
        results += [segmenter(picture()), Segmenter(model, "cpu")(picture())]
    finally:
        torch.set_default_dtype(torch.float32)
    assert all((result.labels == expected).mean() > 0.98 for result in results)


def test_bf16_is_close(model: SegmentationModel, segmenter: Segmenter) -> None:
    image = picture(96, 128)
    half, whole = Segmenter(model, "cpu", precision="bf16")(image), segmenter(image)
    error = np.abs(half.probabilities() - whole.probabilities())
    assert 0 < error.mean() < 0.02
    assert half.probabilities().dtype == np.float32
    assert (half.labels == whole.labels).mean() > 0.9


def broken(model: SegmentationModel) -> SegmentationModel:
    model = copy.deepcopy(model)
    nn.init.constant_(model.classifier.weight, float("nan"))
    return model


def negative_variance(model: SegmentationModel) -> SegmentationModel:
    model = copy.deepcopy(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    norms[0].running_var.fill_(-1)
    return model


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda model: Segmenter("no/such/folder"), "no/such/folder"),
        (lambda model: Segmenter(broken(model)), "classifier.weight"),
        (lambda model: Segmenter(negative_variance(model)), "outputs are not finite"),
        (lambda model: Segmenter(model, "cuda:99"), "cuda:99"),
        (lambda model: Segmenter(model, "hpu"), "device 'hpu' cannot be used"),
        (lambda model: Segmenter(model, 2**70), "cannot be used"),
        (lambda model: Segmenter(None), "of type NoneType; give a model"),
        (lambda model: Segmenter(b"nuclei"), "of type bytes; give a model"),
        (lambda model: Segmenter(nn.DataParallel(model)), "of type DataParallel; give a model"),
        (lambda model: Segmenter("~nouser/run"), "~nouser/run begins with the home folder of an unknown user"),
        (lambda model: create_model("fpn", num_classes=2, backbone=3), "backbone is 3; give text"),
        (lambda model: create_model("fpn", num_classes=2, pretrained=5), "pretrained is 5; give true or false"),
        (lambda model: create_model("fpn", num_classes=2, class_names=3), "class_names is 3; give a list"),
        (lambda model: Segmenter(model, precision="fp16"), "precision is fp16"),
        (lambda model: Segmenter(model, precision=None), "precision is None"),
        (lambda model: Segmenter(model, tile="64"), "tile is 64; give a number greater than or equal to 128"),
        (lambda model: Segmenter(model, tile="large"), "tile is large"),
        (lambda model: Segmenter(model, value_range=5), "value_range is 5"),
        (lambda model: Segmenter(model, value_range=("a", "b")), "value_range is ('a', 'b')"),
        (lambda model: Segmenter(model, protocol=5), "protocol is 5"),
        (lambda model: Segmenter(model)(picture()).objects(None), "name is None"),
        (lambda model: Segmenter(model)(picture()).objects("road", reach=-3), "reach is -3"),
        (lambda model: Segmenter(model)(picture()).objects("road", min_size=-5), "min_size is -5"),
        (lambda model: Segmenter(model)(picture()).objects("road", split="so"), "split is so"),
    ],
)
def test_what_a_segmenter_cannot_be_made_of(model: SegmentationModel, make: Any, named: str, refuses: Any) -> None:
    with refuses(named):
        make(model)


def test_an_image_too_large_for_the_memory_is_left_out(
    model: SegmentationModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter(model)
    see = segmenter._see

    def limited(image: Any) -> Any:
        if image.shape[0] > 50:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return see(image)

    monkeypatch.setattr(segmenter, "_see", limited)
    small, large = np.zeros((40, 40, 3), np.uint8), np.zeros((60, 40, 3), np.uint8)
    with pytest.raises(CrispsegError, match="40×60 pixels needs more memory"):
        segmenter(large)
    failed: list[str] = []
    results = segmenter.stream([small, large, small], on_error=lambda _image, error: failed.append(str(error)))
    assert len(list(results)) == 2 and len(failed) == 1


def test_a_segmenter_is_pickled_with_its_settings(
    model: SegmentationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    image = picture(150, 140)
    expected = Segmenter(model, "cpu", tile=128)(image).labels
    pickles = [pickle.dumps(Segmenter(source, "cpu", tile=128)) for source in ("model", tmp_path / "model", model)]
    monkeypatch.chdir("/")  # another process may run in another folder
    for content in pickles:
        assert np.array_equal(pickle.loads(content)(image).labels, expected)
    assert len(pickles[0]) < 10_000 < len(pickles[2])  # a path, or weights


@pytest.mark.parametrize("again", [copy.copy, lambda result: pickle.loads(pickle.dumps(result))])
def test_copied_results_have_labels_only(again: Any, segmenter: Segmenter, refuses: Any) -> None:
    for result in (segmenter(picture()), *segmenter([picture()])):
        copied = again(result)
        assert np.array_equal(copied.labels, result.labels) and copied.shares() == result.shares()
        with refuses("the image", "pickled"):
            copied.probabilities()
        assert result.probabilities().shape == (5, 48, 70)
    assert len(pickle.dumps(result)) < 10 * result.image.nbytes  # without the model


def in_buffer(buffer: Any, set_number: Any) -> Iterator[Any]:
    """The same object with other values."""
    for number in range(6):
        set_number(buffer, number)
        yield buffer


@pytest.mark.parametrize("kind", ["array", "tensor", "PIL image", "TIFF"])
def test_a_buffer_may_be_used_for_all_images(kind: str, segmenter: Segmenter, tmp_path: Path) -> None:
    pages = [Image.new("L", (40, 40), number) for number in range(6)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    images = {
        "array": lambda: in_buffer(np.zeros((40, 40, 3), np.uint8), lambda array, number: array.fill(number)),
        "tensor": lambda: in_buffer(torch.zeros(3, 40, 40), lambda tensor, number: tensor.fill_(number / 255)),
        "PIL image": lambda: in_buffer(Image.new("L", (40, 40)), lambda picture, number: picture.paste(pages[number])),
        "TIFF": lambda: ImageSequence.Iterator(Image.open(tmp_path / "a.tif")),
    }[kind]
    assert [result.image.max() for result in segmenter.stream(images())] == [*range(6)]
