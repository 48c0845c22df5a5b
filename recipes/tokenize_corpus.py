"""Encode a corpus once into a token store: codes found by the audio's content, for every later training run.

    accelerate launch recipes/tokenize_corpus.py --codec runs/demo/codec --audio runs/demo/corpus --output runs/demo/tokens

Several processes: the same with `torchrun --nproc_per_node 2 …` (CPU or GPUs) or `accelerate launch --multi_gpu …`. The run may
be killed at any moment and started again with the same command: nothing is lost or encoded twice. Running it over another
corpus adds to the store. Unreadable audio is listed in OUTPUT/failures.jsonl.

Audio may also be rows of Parquet files (a column `audio`) or members of tar archives in those folders, or a data set of the Hub,
read where it is: `--audio OWNER/NAME` (twice: to see what is known, then to encode the rest). Stores of one codec are brought
together, and shared, with

    python recipes/tokenize_corpus.py --output runs/all --merge runs/a/tokens runs/b/tokens
    python recipes/tokenize_corpus.py --output runs/demo/tokens --verify --statistics --push OWNER/NAME
"""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from alm.arguments import parse_arguments, run_main

if TYPE_CHECKING:
    from alm.data.audio_groups import AudioGroups
    from codec.base import Codec


@dataclass
class TokenizeArguments:
    output: str = field(metadata={"help": "Folder of the token store; made, resumed or added to."})
    codec: str | None = field(default=None, metadata={"help": "Codec: folder written by train_codec.py, or a Hub id."})
    audio: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Folders (searched through all levels), audio or Parquet files, tar archives, text files that list paths, or "
            "Hub data sets (OWNER/NAME); several allowed."
        },
    )
    split: str = field(default="train", metadata={"help": "Split of the Hub data sets."})
    frames_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "Padded frames per batch: longest clip × clips; 16,384 on a GPU, 1,024 on a CPU (whose caches hold no more)."
        },
    )
    workers: int = field(default=2, metadata={"help": "Threads per process that read and resample."})
    flush_seconds: float = field(
        default=30.0, metadata={"help": "What was encoded is written so often; a killed run loses no more than this."}
    )
    max_missing: float = field(default=0.05, metadata={"help": "Share of clips that may be missing or unreadable."})
    device: str = field(
        default="auto", metadata={"help": "auto (this process's GPU, else the CPU), cpu, cuda, cuda:1, …"}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Read the headers, print files, hours and tokens, and exit."}
    )
    merge: list[str] = field(
        default_factory=list, metadata={"help": "Stores of the same codec to add to --output, instead of --audio."}
    )
    verify: bool = field(default=False, metadata={"help": "Read the whole store again and print what is wrong."})
    statistics: bool = field(default=False, metadata={"help": "Print clips, hours, tokens and codebook use."})
    push: str | None = field(
        default=None, metadata={"help": "Upload the store to this data set of the Hub, OWNER/NAME."}
    )
    private: bool = field(default=False, metadata={"help": "Make the data set private if it is new."})

    def __post_init__(self) -> None:
        store_alone = self.merge or self.verify or self.statistics or self.push
        if bool(self.codec) != bool(self.audio) or not (self.audio or store_alone):
            raise ValueError(
                "--codec and --audio are required, together (all but --merge, --verify, --statistics and --push need them)"
            )
        if self.merge and self.audio:
            raise ValueError("--merge and --audio are two runs: tokenise first, then merge")
        if (self.frames_per_batch is not None and self.frames_per_batch < 1) or self.workers < 1:
            raise ValueError("--frames_per_batch and --workers must be at least 1")
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"--max_missing is a share from 0 to 1, got {self.max_missing}")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(TokenizeArguments, argv, description=__doc__)
    if args.audio and (not tokenize(args) or args.dry_run):
        return
    if args.merge:
        from alm.data.tokens_build import merge_stores

        print(f"{args.output}: {merge_stores(args.merge, args.output):,} clips after merging")
    if args.verify:
        verify(args.output)
    print_statistics(args.output)
    if args.push:
        from alm.data.tokens_hub import push_store

        print(f"pushed to {args.push} at {push_store(Path(args.output), args.push, args.private)}")


def tokenize(args: TokenizeArguments) -> bool:
    """Build the store; returns whether this process is the one that speaks."""
    import torch
    from accelerate import PartialState

    from alm.data.audio_groups import find_groups
    from alm.data.example import DataError
    from alm.data.tokens_build import build_token_store
    from codec.zoo import load_codec

    # without cpu=True, processes that torchrun starts on a machine without GPUs each take themselves for the only one
    on_cpu = args.device == "cpu" or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu, timeout=timedelta(days=1))  # ranks may end hours apart: wait for the last one
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != state.num_processes:
        raise DataError(f"{launched} processes were launched, but accelerate joined {state.num_processes} of them")
    found = find_groups(args.audio, args.split)
    device = str(state.device) if args.device == "auto" else args.device
    codec = load_codec(args.codec, device=device)
    budget = args.frames_per_batch or (1_024 if device == "cpu" else 16_384)
    if hasattr(codec, "frames_per_batch"):
        codec.frames_per_batch = budget  # the codec's own limit would cut our batches again
    if state.is_main_process:
        print_plan(args, found, codec, state.num_processes, device)
    if args.dry_run:
        if state.is_main_process:
            print_estimate(found, codec, args.workers)
    else:
        report = build_token_store(
            found.groups,
            codec,
            args.output,
            codec_name=args.codec,
            rank=state.process_index,
            world_size=state.num_processes,
            barrier=state.wait_for_everyone,
            frames_per_batch=budget,
            workers=args.workers,
            flush_seconds=args.flush_seconds,
            max_missing=args.max_missing,
        )
        if state.is_main_process:
            print(f"{report.encoded} contents encoded, {report.failed} of {report.files} files failed")
    state.destroy_process_group()
    return bool(state.is_main_process)


def print_plan(args: TokenizeArguments, found: "AudioGroups", codec: "Codec", processes: int, device: str) -> None:
    from alm.data.audio_files import UNREADABLE_SUFFIXES

    others = ", ".join(f"{count} {suffix}" for suffix, count in found.ignored.most_common(5))
    undecodable = sum(count for suffix, count in found.ignored.items() if suffix.lower() in UNREADABLE_SUFFIXES)
    print(f"{processes} process{'es' * (processes > 1)}, the first on {device}, {args.workers} reading threads each")
    print(
        f"codec {args.codec}: {codec.num_codebooks} × {codec.codebook_size} codes, {codec.tokens_per_second:g} tokens a second, "
        f"fingerprint {codec.fingerprint}"
    )
    print(f"{count(found)} -> {args.output}" + (f" (other files, left out: {others})" if others else ""))
    if undecodable:
        print(
            f"warning: {undecodable} of those left out are audio that cannot be decoded here (m4a, …): convert them to FLAC"
        )


def count(found: "AudioGroups") -> str:
    from alm.data.audio_groups import AudioFile

    files = sum(isinstance(group, AudioFile) for group in found.groups)
    inside = found.clips - files
    containers = len({group.path for group in found.groups}) - files
    return f"{files} audio files" + (f" and {inside} clips in {containers} Parquet files or archives" if inside else "")


def print_estimate(found: "AudioGroups", codec: "Codec", workers: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from tqdm import tqdm

    from alm.data.audio_groups import AudioFile
    from codec.audio import AudioError, read_header

    def seconds(path: Path) -> float | str:
        try:
            return read_header(path).seconds
        except AudioError as error:
            return str(error)

    files = [Path(group.path) for group in found.groups if isinstance(group, AudioFile)]
    with ThreadPoolExecutor(workers) as pool:
        read = list(tqdm(pool.map(seconds, files), total=len(files), desc="headers", unit=" files"))
    known = [value for value in read if not isinstance(value, str) and value == value]
    errors = [value for value in read if isinstance(value, str)]
    hours = sum(known) / 3600
    print(
        f"{hours:.2f} hours by {len(known)} headers, {hours * 3600 * codec.tokens_per_second:,.0f} tokens before equal files are merged"
    )
    if found.clips > len(files):
        print(
            f"not counted: {found.clips - len(files)} clips in Parquet files and archives, whose length is not known before"
        )
    print(f"{len(errors)} headers unreadable" + "".join(f"\n  {error}" for error in errors[:10]))


def print_statistics(output: str) -> None:
    from alm.data.tokens import TokenStore

    store = TokenStore.open(output)
    statistics = store.statistics()
    print(f"{output}: {statistics.clips} clips, {statistics.hours:.2f} hours, {statistics.tokens:,} tokens")
    size = store.store_contract.codebook_size
    for k, (used, perplexity) in enumerate(zip(statistics.used, statistics.perplexity, strict=True)):
        print(f"  codebook {k}: {used:.1%} of {size} codes used, perplexity {perplexity:.1f}")


def verify(output: str) -> None:
    from alm.data.example import DataError
    from alm.data.tokens import TokenStore

    problems = TokenStore.open(output).verify()
    if problems:
        raise DataError(f"{output} is not sound:\n  " + "\n  ".join(problems))
    print("sound: every shard's bytes, shapes, code ranges, keys and sources agree")


if __name__ == "__main__":
    run_main(main)
