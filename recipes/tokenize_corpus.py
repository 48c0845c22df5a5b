"""Encode a corpus once into a token store: codes found by the audio's content, for every later training run.

    accelerate launch recipes/tokenize_corpus.py --codec runs/demo/codec --audio runs/demo/corpus --output runs/demo/tokens

Several processes: the same with `torchrun --nproc_per_node 2 …` (CPU or GPUs) or `accelerate launch --multi_gpu …`. The run may
be killed at any moment and started again with the same command: nothing is lost or encoded twice. Running it over another
corpus adds to the store. Unreadable files are listed in OUTPUT/failures.jsonl.

    python recipes/tokenize_corpus.py --output runs/demo/tokens --verify
"""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from alm.arguments import parse_arguments, run_main

if TYPE_CHECKING:
    from alm.data.audio_files import AudioFiles
    from codec.base import Codec


@dataclass
class TokenizeArguments:
    output: str = field(metadata={"help": "Folder of the token store; made, resumed or added to."})
    codec: str | None = field(default=None, metadata={"help": "Codec: folder written by train_codec.py, or a Hub id."})
    audio: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Folders (searched through all levels), audio files, or text files that list paths; several allowed."
        },
    )
    frames_per_batch: int = field(
        default=16_384, metadata={"help": "Padded frames per batch: longest clip × clips. Less needs less memory."}
    )
    workers: int = field(default=2, metadata={"help": "Threads per process that read and resample."})
    max_failures: float = field(default=0.05, metadata={"help": "Share of files that may be unreadable."})
    device: str = field(
        default="auto", metadata={"help": "auto (this process's GPU, else the CPU), cpu, cuda, cuda:1, …"}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Read the headers, print files, hours and tokens, and exit."}
    )
    verify: bool = field(default=False, metadata={"help": "Read the whole store again, print what is wrong, and exit."})

    def __post_init__(self) -> None:
        if not self.verify and not (self.codec and self.audio):
            raise ValueError("--codec and --audio are required (all but --verify need them)")
        if self.frames_per_batch < 1 or self.workers < 1:
            raise ValueError("--frames_per_batch and --workers must be at least 1")
        if not 0 <= self.max_failures <= 1:
            raise ValueError(f"--max_failures is a share from 0 to 1, got {self.max_failures}")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(TokenizeArguments, argv, description=__doc__)
    if args.verify:
        verify(args.output)
        return
    import torch
    from accelerate import PartialState

    from alm.data.audio_files import find_audio
    from alm.data.example import DataError
    from alm.data.tokens_build import build_token_store
    from codec.zoo import load_codec

    # without cpu=True, processes that torchrun starts on a machine without GPUs each take themselves for the only one
    on_cpu = args.device == "cpu" or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu, timeout=timedelta(days=1))  # ranks may end hours apart: wait for the last one
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != state.num_processes:
        raise DataError(f"{launched} processes were launched, but accelerate joined {state.num_processes} of them")
    files = find_audio(args.audio)
    device = str(state.device) if args.device == "auto" else args.device
    codec = load_codec(args.codec, device=device)
    if hasattr(codec, "frames_per_batch"):
        codec.frames_per_batch = args.frames_per_batch  # the codec's own limit would cut our batches again
    if state.is_main_process:
        print_plan(args, files, codec, state.num_processes, device)
    if args.dry_run:
        if state.is_main_process:
            print_estimate(files, codec, args.workers)
    else:
        report = build_token_store(
            files.paths,
            codec,
            args.output,
            codec_name=args.codec,
            rank=state.process_index,
            world_size=state.num_processes,
            barrier=state.wait_for_everyone,
            frames_per_batch=args.frames_per_batch,
            workers=args.workers,
            max_failures=args.max_failures,
        )
        if state.is_main_process:
            print(f"{report.encoded} contents encoded, {report.failed} of {report.files} files failed")
            print_statistics(args.output)
    state.destroy_process_group()


def print_plan(args: TokenizeArguments, files: "AudioFiles", codec: "Codec", processes: int, device: str) -> None:
    from alm.data.audio_files import UNREADABLE_SUFFIXES

    others = ", ".join(f"{count} {suffix}" for suffix, count in files.ignored.most_common(5))
    undecodable = sum(count for suffix, count in files.ignored.items() if suffix.lower() in UNREADABLE_SUFFIXES)
    print(f"{processes} process{'es' * (processes > 1)}, the first on {device}, {args.workers} reading threads each")
    print(
        f"codec {args.codec}: {codec.num_codebooks} × {codec.codebook_size} codes, {codec.tokens_per_second:g} tokens a second, "
        f"fingerprint {codec.fingerprint}"
    )
    print(
        f"{len(files.paths)} audio files -> {args.output}" + (f" (other files, left out: {others})" if others else "")
    )
    if undecodable:
        print(
            f"warning: {undecodable} of those left out are audio that cannot be decoded here (m4a, …): convert them to FLAC"
        )


def print_estimate(files: "AudioFiles", codec: "Codec", workers: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from tqdm import tqdm

    from codec.audio import AudioError, read_header

    def seconds(path: Path) -> float | str:
        try:
            return read_header(path).seconds
        except AudioError as error:
            return str(error)

    with ThreadPoolExecutor(workers) as pool:
        found = list(tqdm(pool.map(seconds, files.paths), total=len(files.paths), desc="headers", unit=" files"))
    known = [value for value in found if not isinstance(value, str) and value == value]
    errors = [value for value in found if isinstance(value, str)]
    hours = sum(known) / 3600
    print(
        f"{hours:.2f} hours by {len(known)} headers, {hours * 3600 * codec.tokens_per_second:,.0f} tokens before equal files are merged"
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
    print_statistics(output)
    print("sound: every shard's bytes, shapes, code ranges, keys and sources agree")


if __name__ == "__main__":
    run_main(main)
