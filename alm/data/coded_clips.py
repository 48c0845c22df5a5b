"""Audio that a token store has the codes of, as clips for the training of a codec's parts."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from alm.data.audio_files import find_audio
from alm.data.example import DataError
from alm.data.tokens import TokenStore
from alm.data.tokens_format import item_name
from codec.base import Codes
from codec.data import Clip, read_clips
from codec.mixing import split_off


class CodedClips(NamedTuple):
    """Clips to train on, a list for each source, those `held_out`, how many were `left_out` (not encodable), and a `digest` of all."""

    sources: list[Sequence[Clip]]
    held_out: Sequence[Clip]
    left_out: int
    digest: str

    @property
    def total(self) -> int:
        """Clips to train on."""
        return sum(map(len, self.sources))


class StoredCodes:
    """Codes `(1, T)` of a file, or of the bytes of a data set's row, from a store."""

    def __init__(self, store: TokenStore) -> None:
        self.store = store

    def __call__(self, audio: Path | bytes) -> Codes:
        """Raises `DataError` where the store does not have them."""
        return self.store.codes_of(audio)


def read_coded_clips(
    sources: Sequence[str], store: TokenStore, split: str = "train", held_out: int = 0, streaming: bool = False
) -> CodedClips:
    """List clips whose codes are in `store`; the first `held_out`, shared evenly among the sources, are kept apart.

    A source is what `tokenize_corpus.py` takes (folders searched through all levels, audio files, text lists of paths) or what
    `train_codec.py` takes (a CSV file, a folder with metadata.csv, a data set of the Hub). Files that the store lists as not encodable are
    left out. Raises `DataError` where other files are not in the store.
    """
    lists, left_out, total = [], 0, hashlib.sha256()
    for source in sources:
        clips = _clips_of(source, split, streaming)
        if isinstance(clips, list):
            clips, keys = _known(clips, store)
            left_out += keys.count("")
            total.update(" ".join(keys).encode())
        else:
            total.update(f"{source} {split} {len(clips)}".encode())  # its audio is hashed when it is read
        lists.append(clips)
    each = -(-held_out // len(lists))
    parts = [split_off(clips, each) for clips in lists]
    kept_apart = [clip for first, _ in parts for clip in first][:held_out]
    found = CodedClips([rest for _, rest in parts], kept_apart, left_out, total.hexdigest()[:16])
    if not found.total:
        raise DataError(
            f"no clips to train on in {', '.join(sources)} ({left_out} left out, {len(kept_apart)} held out)"
        )
    return found


def _clips_of(source: str, split: str, streaming: bool) -> Sequence[Clip]:
    path = Path(source)
    table = path.suffix == ".csv" or (path / "metadata.csv").is_file() or any(path.glob("*.parquet"))
    if path.exists() and not table:
        return [Clip(file, "") for file in find_audio([path]).paths]
    return read_clips(source, split, streaming=streaming)


def _known(clips: list[Clip], store: TokenStore) -> tuple[list[Clip], list[str]]:
    """The clips that can be decoded, and for each of all its content key, empty where it cannot."""
    failed = {failure.path for failure in store.failures()}
    known, keys, unknown = [], [], []
    for clip in clips:
        assert isinstance(clip.audio, Path)
        if item_name(clip.audio, store.folder) in failed:
            keys.append("")
            continue
        try:
            keys.append(store.key_of(clip.audio))
            known.append(clip)
        except DataError as error:
            unknown.append(str(error))
    if unknown:
        raise DataError(f"{len(unknown)} of {len(clips)} clips have no codes. The first: {unknown[0]}")
    return known, keys
