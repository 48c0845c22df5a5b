"""Which audio files a command line means: folders searched, lists read, files taken."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from alm.data.example import DataError
from codec.audio import AUDIO_SUFFIXES

UNREADABLE_SUFFIXES = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".amr", ".ape", ".wv")
"""Audio by name that soundfile cannot decode: a search must not pass it over without a word."""


class AudioFiles(NamedTuple):
    """Files found, sorted and each once, and how many others the folders hold, by suffix."""

    paths: list[Path]
    ignored: Counter[str]


def find_audio(sources: Iterable[str | Path], also: tuple[str, ...] = ()) -> AudioFiles:
    """List audio files.

    A source is a folder (searched through all levels, links followed, for the suffixes of `AUDIO_SUFFIXES`; hidden files are
    left out), an audio file, or any other file: a text list of one path per line, taken as they stand (relative to the current
    folder; empty lines and lines that begin with # are skipped). Names that end with one of `also` are taken too. Raises
    `DataError` for a source that does not exist, is not text, or yields no file.
    """
    found: set[Path] = set()
    ignored: Counter[str] = Counter()
    for source in map(Path, sources):
        if source.is_dir():
            paths = [
                path for path in _walk(source) if is_audio(path, also) or ignored.update([path.suffix or "no suffix"])
            ]
        elif source.name.lower().endswith((*AUDIO_SUFFIXES, *also)) and source.is_file():
            paths = [source]
        else:
            paths = _read_list(source)
        if not paths:
            others = ", ".join(f"{count} {suffix}" for suffix, count in ignored.most_common(5)) or "nothing"
            raise DataError(f"{source}: no audio file in it ({others} found); looked for {', '.join(AUDIO_SUFFIXES)}")
        found.update(paths)
    return AudioFiles(sorted(found), ignored)


def is_audio(path: Path, also: tuple[str, ...] = ()) -> bool:
    """Whether a file is audio, or of a kind in `also`, by its name; hidden files are not."""
    return path.name.lower().endswith((*AUDIO_SUFFIXES, *also)) and not path.name.startswith(".")


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()  # a link may lead back up
    for parent, folders, files in os.walk(folder, followlinks=True):
        stat = Path(parent).stat()
        if (stat.st_dev, stat.st_ino) in seen:
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders.sort()
        yield from (Path(parent) / name for name in files)


def _read_list(source: Path) -> list[Path]:
    try:
        # names may begin or end with blanks, and hold what str.splitlines takes for the end of a line
        lines = [line.removesuffix("\r") for line in source.read_text(encoding="utf-8-sig").split("\n")]
    except FileNotFoundError:
        raise DataError(f"{source}: no such file or folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: neither an audio file nor a text list of paths ({error})") from error
    return [Path(line) for line in lines if line.strip() and not line.startswith("#")]
