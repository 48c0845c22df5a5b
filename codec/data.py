"""Captioned audio for codec training: a folder, a CSV list or a Hub data set, cropped and batched."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from codec.audio import AudioError, read_audio
from codec.mel import MelSpec, log_mel
from codec.text import CaptionTokenizer

CAPTION_COLUMNS = ("caption", "text")


class ClipListError(ValueError):
    """A list of captioned clips that cannot be used: says what was given and what is needed."""


@dataclass(frozen=True)
class Clip:
    """One clip: its file (or encoded bytes) and its caption."""

    audio: Path | bytes
    caption: str


def read_clips(
    source: str | Path, split: str = "train", caption_column: str | None = None, streaming: bool = False
) -> Sequence[Clip]:
    """List captioned clips.

    `source` is a folder with `metadata.csv`, or a CSV file, with the columns `file_name` (relative to the CSV's folder) and
    `caption` or `text`, as the Hub's AudioFolder writes them; anything else is a data set for `datasets.load_dataset` with an
    `audio` column, read row by row as clips are asked for; with `streaming` it is not copied to this machine first
    (`codec.streaming`). `caption_column` names another column (transcripts, for the paper's ablation).
    Raises `ClipListError` naming what is missing.
    """
    path = Path(source)
    table = path / "metadata.csv" if path.is_dir() else path
    if table.suffix == ".csv" and table.is_file():
        return _read_table(table, caption_column)
    if path.exists() and not any(path.glob("*.parquet")):
        raise ClipListError(
            f"{path} is neither a CSV file nor a folder with metadata.csv (columns file_name and caption)"
        )
    if streaming:
        from codec.streaming import StreamedClips

        return StreamedClips(str(source), split, caption_column)
    try:
        return DataSetClips(str(source), split, caption_column)
    except OSError as error:  # neither a local file nor a data set of the Hub (or of its cache, without a network)
        raise ClipListError(
            f"{source} is no CSV file, no folder with metadata.csv, and no data set that can be loaded ({type(error).__name__}: {error})"
        ) from error


def choose_caption_column(columns: Sequence[str], wanted: str | None, audio: str, source: str | Path) -> str:
    """The column of captions among `columns`; raises `ClipListError` where it or the column `audio` is missing."""
    accepted = (wanted,) if wanted else CAPTION_COLUMNS
    column = next((name for name in accepted if name in columns), None)
    if column is None or audio not in columns:
        raise ClipListError(f"{source} has columns {list(columns)}; {audio} and one of {accepted} are needed")
    return column


def _read_table(table: Path, caption_column: str | None) -> list[Clip]:
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        column = choose_caption_column(reader.fieldnames or (), caption_column, "file_name", table)
        return [Clip(table.parent / row["file_name"], row[column]) for row in reader]


def parquet_shards(name: str, split: str) -> list[str]:
    """Addresses of the Parquet files of a data set of the Hub, or of a local folder. Raises `ClipListError` where there are none."""
    import datasets

    try:
        files = datasets.load_dataset_builder(name).config.data_files
    except (OSError, ValueError) as error:
        raise ClipListError(
            f"data set {name} cannot be opened for streaming ({type(error).__name__}: {error})"
        ) from error
    found = [str(file) for file in (files or {}).get(split, [])]
    other = next((file for file in found if not file.endswith(".parquet")), None)
    if not found or other is not None:
        splits = ", ".join(map(str, files or ())) or "no files"
        what = f"its split {split} holds {other}" if other else f"it has no split {split} (it has {splits})"
        raise ClipListError(
            f"{name} cannot be streamed: {what}, and Parquet files are needed; use it with --streaming false"
        )
    return found


class DataSetClips(Sequence[Clip]):
    """Clips of a data set of the Hub or of a folder of Parquet files, read from disk when they are asked for."""

    def __init__(self, name: str, split: str, caption_column: str | None = None) -> None:
        import datasets

        # decode=False: decoding inside datasets would need torchcodec and FFmpeg; soundfile reads the bytes
        rows = datasets.load_dataset(name, split=split)
        self.column = choose_caption_column(rows.column_names, caption_column, "audio", name)
        self.rows = rows.cast_column("audio", datasets.Audio(decode=False))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice) -> Any:
        """One clip, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        row = self.rows[index]
        return Clip(row["audio"]["bytes"] or Path(row["audio"]["path"]), row[self.column])

    @property
    def captions(self) -> Sequence[str]:
        """The column of captions alone: iterating clips would read all audio."""
        captions: Sequence[str] = self.rows[self.column]
        return captions


@dataclass
class CropDataset(Dataset[dict[str, Any]]):
    """Crops of at most `crop_seconds`, drawn anew each epoch from (seed, epoch, clip) alone: exact under resume and workers.

    Unreadable files are replaced by the next readable clip and listed in `unreadable` (by clip: in a mixture an index means another
    clip in each epoch); more than `max_missing` of all clips stops the run with `AudioError`.
    """

    clips: Sequence[Clip]
    spec: MelSpec
    crop_seconds: float | None = 10.0
    seed: int = 0
    max_missing: float = 0.05
    waveforms_only: bool = False
    epoch: int = 0
    unreadable: dict[Clip, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.clips:
            raise ClipListError("no clips to train on: the list of audio is empty")

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of each epoch."""
        self.epoch = epoch
        if hasattr(self.clips, "set_epoch"):  # a mixture (`codec.mixing`)
            self.clips.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`{"mel": (T, bins), "caption": str}`, or `{"waveform": (S,)}`."""
        index, clip, waveform = self._readable(index)
        crop = torch.from_numpy(self._crop(waveform, index))
        if self.waveforms_only:
            return {"waveform": crop}
        return {"mel": log_mel(crop, self.spec), "caption": clip.caption}

    def _readable(self, index: int) -> tuple[int, Clip, NDArray[np.float32]]:
        for step in range(len(self.clips)):
            candidate = (index + step) % len(self.clips)
            clip = self.clips[candidate]
            if clip in self.unreadable:
                continue
            try:
                return candidate, clip, read_audio(clip.audio, self.spec.sampling_rate)
            except AudioError as error:
                self._list(clip, str(error))
        raise AudioError("no clip can be read")

    def _list(self, clip: Clip, reason: str) -> None:
        self.unreadable[clip] = reason
        if len(self.unreadable) > self.max_missing * len(self.clips):
            reasons = "\n  ".join(list(self.unreadable.values())[:5])
            raise AudioError(
                f"{len(self.unreadable)} of {len(self.clips)} clips cannot be read, over the limit of "
                f"{self.max_missing:.0%} (--max_missing). The first:\n  {reasons}"
            )

    def _crop(self, waveform: NDArray[np.float32], index: int) -> NDArray[np.float32]:
        if self.crop_seconds is None:
            return waveform
        hop = self.spec.hop_length
        size = round(self.crop_seconds * self.spec.sampling_rate / hop) * hop
        spare = len(waveform) - size
        if spare > 0:
            draw = hashlib.sha256(f"{self.seed} {self.epoch} {index}".encode()).digest()
            start = int.from_bytes(draw[:8], "big") % (spare + 1)
            waveform = waveform[start : start + size]
        elif spare < 0 and self.waveforms_only:  # the vocoder's loss takes waveforms of one length
            waveform = np.pad(waveform, (0, -spare))
        return waveform


@dataclass
class CaptionCollator:
    """Pad mels and captions to one batch of `EntangleCodecForPreTraining`; counts captions cut at the context."""

    caption_tokenizer: CaptionTokenizer  # not "tokenizer": Trainer would try to save it as one of its own
    truncated: int = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows of `CropDataset` to the model's arguments; `attention_mask` only where lengths differ."""
        mels = [row["mel"] for row in rows]
        captions = self.caption_tokenizer([row["caption"] for row in rows])
        self.truncated += captions.truncated
        lengths = torch.tensor([len(mel) for mel in mels])
        batch = {
            "input_features": torch.nn.utils.rnn.pad_sequence(mels, batch_first=True),
            "caption_ids": captions.input_ids,
            "caption_lengths": captions.lengths,
        }
        if int(lengths.min()) < int(lengths.max()):
            batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        return batch


def mel_statistics(clips: Sequence[Clip], spec: MelSpec, limit: int = 500) -> tuple[float, float]:
    """Mean and standard deviation of the un-normalised log-mel over up to `limit` clips spread over the list.

    Of clips with an order of their own (`codec.mixing`) the first ones.
    """
    plain = MelSpec(**{**vars(spec), "mean": 0.0, "std": 1.0})
    total, squares, count = 0.0, 0.0, 0
    for clip in clips[:limit] if getattr(clips, "in_order", False) else clips[:: max(1, len(clips) // limit)]:
        try:
            mel = log_mel(torch.from_numpy(read_audio(clip.audio, spec.sampling_rate)), plain).double()
        except AudioError:
            continue  # listed when training meets it
        total, squares, count = total + float(mel.sum()), squares + float(mel.square().sum()), count + mel.numel()
    if not count:
        raise AudioError("none of the clips can be read; check the paths in the list")
    mean = total / count
    return round(mean, 4), round((squares / count - mean * mean) ** 0.5, 4)
