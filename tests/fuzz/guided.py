"""Guide damage of one reader's files by coverage: `cd tests && python -m fuzz.guided images -max_total_time=600`.

Needs `pip install atheris`; the flags are libFuzzer's. The first byte of an input selects the name of the file, the
others are its content. An input that goes wrong is left in the working folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz.readers import Reader


def inputs(reader: Reader) -> dict[str, bytes]:
    """Return the sound files as inputs."""
    return {name: bytes([index]) + reader.seeds[name] for index, name in enumerate(sorted(reader.seeds))}


def target(reader: Reader) -> Callable[[bytes], None]:
    """Return the function that reads an input; it raises anything but a refusal in one line."""
    from crispseg import CrispsegError

    names = sorted(reader.seeds)

    def read(data: bytes) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / names[data[0] % len(names) if data else 0]
            path.write_bytes(data[1:])
            try:
                reader.read(path)
            except CrispsegError as error:
                assert "\n" not in str(error).strip(), error

    return read


def main() -> None:
    """Fuzz until a flag or an error ends it."""
    import atheris

    kind, *flags = sys.argv[1:]
    with atheris.instrument_imports(include=["crispseg"]):
        from fuzz.readers import readers
        from fuzz.text_readers import text_readers
    with TemporaryDirectory() as name:
        reader = (readers(Path(name)) | text_readers())[kind]
        corpus = Path(name) / "corpus"
        corpus.mkdir()
        for file, data in inputs(reader).items():
            (corpus / file).write_bytes(data)
        atheris.Setup([sys.argv[0], *flags, str(corpus)], target(reader))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
