"""What the page asks for, without Gradio."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np

from crispseg.data.scenes import render_scene
from crispseg.demo import view
from crispseg.demo.engine import Engine, Seen
from crispseg.demo.session import Kept, Store
from crispseg.demo.uploads import Limits, Picture, enlarged, read_upload, shown_name, trim, uploaded_path
from crispseg.errors import CrispsegError
from crispseg.imaging import image_channels, write_image, write_labels

AT_ONCE = 2
"""Images that are worked on at the same time; their networks take turns."""
SCENE_SIZE = (384, 512)
"""Height and width of the built-in street scenes that are drawn as samples."""


class Service:
    """One for all users: what belongs to a page is passed in and out.

    Args:
        engines: models by the name to choose them by.
        folder: for uploads and masks; only what is in it is read.
        limits: of uploads.
    """

    def __init__(self, engines: Mapping[str, Engine], folder: Path, limits: Limits) -> None:
        self.engines, self.folder, self.limits = dict(engines), folder, limits
        self.store = Store()
        # Memory that a thread has freed stays with the thread, so few of them do what needs much.
        self._workers = ThreadPoolExecutor(AT_ONCE, "crispseg-demo")

    def close(self) -> None:
        """Take no more work, and wait for what is under way: it would write its mask after the folder is removed."""
        self._workers.shutdown(cancel_futures=True)

    def segment(self, upload: object, model: object, token: str | None) -> tuple[str, str, str, str, str]:
        """Segment an uploaded image.

        Args:
            upload: what the browser tells about it: `path` on the server and `orig_name`.
            model: name of one.
            token: of the page's result before, which is forgotten at the end, also of a failure.

        Returns:
            HTML of the picture, the times and the legend; the path of the mask; the token of the result.

        Raises:
            CrispsegError: no uploaded image, one over the limits or broken, or no such model.
        """
        try:
            return self._workers.submit(self._segment, upload, model).result()
        finally:
            self.store.drop(token)

    def _segment(self, upload: object, model: object) -> tuple[str, str, str, str, str]:
        engine = self.engines.get(model) if isinstance(model, str) else None
        if engine is None:
            raise CrispsegError("there is no such model here; choose one of the list")
        start = perf_counter()
        path = uploaded_path(upload, self.folder)
        name = shown_name(upload.get("orig_name") or path.name) if isinstance(upload, dict) else path.name
        picture = read_upload(path, name, image_channels(engine.info.in_chans), self.limits)
        read = perf_counter()
        seen = engine.see(picture)
        segmentation = seen.segmentation
        mask = self.save_mask(seen, picture)
        picture_html = view.stage(segmentation)
        legend = view.legend(segmentation.shares(), segmentation.label_set)
        token = self.store.put(Kept(segmentation.labels, segmentation.label_set, seen.steps))
        seconds = {"network": seen.network, "reading": read - start, "the rest": perf_counter() - read - seen.network}
        size = segmentation.labels.shape[0], segmentation.labels.shape[1]
        return picture_html, view.times(seconds, size, picture.size, str(engine.device)), legend, str(mask), token

    def save_mask(self, seen: Seen, picture: Picture) -> Path:
        """Write the labels at the image's own size as a palette PNG of class ids, under a name nobody can guess."""
        path = self.folder / secrets.token_hex(16) / f"{picture.stem}_mask.png"
        labels = enlarged(seen.segmentation.labels, picture.size)
        write_labels(path, labels, seen.segmentation.label_set.palette)
        trim(self.folder, self.limits)
        return path

    def pixel(self, token: str | None, place: object) -> str:
        """HTML about the pixel at `place`, x and y in the picture, of the result of this token.

        Raises:
            CrispsegError: no such result any more, or no place.
        """
        kept = self.store.get(token)
        if kept is None:
            raise CrispsegError("this result is no longer kept; segment the image again")
        if not (
            isinstance(place, list | tuple)
            and len(place) == 2
            and all(isinstance(value, int | float) and np.isfinite(value) for value in place)
        ):
            raise CrispsegError("this is no place in the picture; click on the picture")
        return view.pixel(kept, float(place[0]), float(place[1]))

    def sample(self) -> Path:
        """A new built-in street scene, as a PNG in the folder."""
        image, _ = render_scene(secrets.randbelow(2**31), SCENE_SIZE)
        path = self.folder / secrets.token_hex(16) / "scene.png"
        write_image(path, image)
        return path
