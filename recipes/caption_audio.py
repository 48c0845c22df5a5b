"""Write rich captions (appendix C.2) of a corpus with an audio-language model: the text that EntangleCodec is trained against.

    python recipes/caption_audio.py --audio data/musicbench --model Qwen/Qwen2-Audio-7B-Instruct --device cuda --output captions.csv
    python recipes/caption_audio.py --audio data/LibriSpeech --kind speech --server http://localhost:8000/v1 \\
        --model XiaomiMiMo/MiMo-Audio-7B-Instruct --workers 32 --output captions.csv

Each clip is described along speaker, acoustic environment, music and sound events; what the paper leaves out is left out (music-only: no
speaker, speech-only: no music), and for LibriSpeech and LibriTTS the transcript beside the audio is appended. A reply that breaks a rule
is asked for again with the reason. --dry_run prints the cost and asks nothing. The run may be killed at any moment; the same
command goes on. Failures are listed in NAME.failed.csv. The table is read by `train_codec.py --audio captions.csv`.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alm.arguments import option, parse_arguments, run_main

if TYPE_CHECKING:
    from alm.captioning.inputs import SourceClip
    from alm.captioning.output import Output
    from alm.chat.backend import Backend


@dataclass
class CaptionArguments:
    audio: list[str] = field(
        metadata={
            "help": "folders (searched through all levels), audio files, text lists of paths, or CSV files with file_name "
            "(relative to the CSV) and optionally kind and transcript; several allowed"
        }
    )
    model: str = field(metadata={"help": "model: folder or Hub id; with --server, its name there"})
    output: str = option("captions.csv", "table to write; log, failures and manifest go beside it")
    kind: Literal["auto", "speech", "music", "sound"] = option(
        "auto", "what the clips hold: only speech, only music, anything (sound), or as the model finds (auto)"
    )
    transcripts: str | None = option(
        None, "CSV with file_name and transcript (or text), beside those in official layouts"
    )
    append_transcripts: bool = option(True, "append transcripts to the captions of clips that have one")
    server: str | None = option(None, "address of an OpenAI-compatible server, for example http://localhost:8000/v1")
    api_key_env: str | None = option(None, "name of the environment variable that holds the server's key")
    workers: int = option(8, "requests to the server at a time")
    timeout: float = option(120.0, "seconds without an answer after which a request is tried again")
    attempts: int = option(
        6, "attempts per request at rate limits, server errors and broken connections, with back-off"
    )
    temperature: float = option(0.0, "of the server's sampling; 0 is greedy (a local model is always greedy)")
    sampling_rate: int = option(16_000, "Hz of the audio that is sent to the server")
    revision: str | None = option(None, "branch, tag or commit of a local model from the Hub")
    device: str = option("cpu", "where a local model runs: cpu, cuda, cuda:1, …")
    dtype: str = option("auto", "of a local model: auto (as saved), float32, bfloat16, …")
    max_new_tokens: int = option(512, "limit of one reply")
    max_seconds: float | None = option(None, "let the model hear only the first seconds of each clip; without it, all")
    retries: int = option(2, "further attempts after a reply that breaks a rule")
    max_failures: float = option(
        0.05, "share of clips that may get no valid caption (unreadable, no reply, a reply against the rules)"
    )
    limit: int | None = option(None, "only the first N clips")
    audio_tokens_per_second: float = option(
        25.0, "of the model, for the estimate (Qwen2-Audio and Audio Flamingo 3: 25, MiMo-Audio: 6.25)"
    )
    price_per_million_tokens: list[float] = field(
        default_factory=list,
        metadata={"help": "for the estimate: one price, or that of prompt and that of answer tokens"},
    )
    retry_failed: bool = option(False, "try clips again that failed in a former run")
    overwrite: bool = option(False, "begin afresh where the log is of other settings")
    dry_run: bool = option(False, "print the estimate of the cost and exit; asks and writes nothing")

    def __post_init__(self) -> None:
        for name in ("workers", "attempts", "max_new_tokens", "limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}")
        for name in ("timeout", "max_seconds", "audio_tokens_per_second"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"--{name} must be above 0, got {value}")
        if not 0 <= self.max_failures <= 1:
            raise ValueError(f"--max_failures is a share from 0 to 1, got {self.max_failures}")
        if self.retries < 0 or self.temperature < 0 or min(self.price_per_million_tokens, default=0) < 0:
            raise ValueError("--retries, --temperature and prices cannot be negative")
        if len(self.price_per_million_tokens) > 2:
            raise ValueError("--price_per_million_tokens takes one price, or two: of prompt and of answer tokens")
        self.check_server()

    def check_server(self) -> None:
        if self.server is None and (self.api_key_env or self.temperature):
            raise ValueError("--api_key_env and --temperature are a server's: give --server")
        if self.server is not None and self.revision:
            raise ValueError("--revision is a local model's: a server has loaded what it has loaded")
        if self.api_key_env and not os.environ.get(self.api_key_env):
            raise ValueError(
                f"--api_key_env: no environment variable {self.api_key_env} is set (the name of one, not the key)"
            )


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(CaptionArguments, argv, description=__doc__)
    from alm.captioning.output import Output

    output = Output(Path(args.output))
    clips = list_sources(args)
    print_plan(args, clips, output)
    if args.dry_run:
        return
    backend = load_backend(args)
    command = ["python", "recipes/caption_audio.py", *(sys.argv[1:] if argv is None else argv)]
    caption(args, clips, output, backend, command)


def list_sources(args: CaptionArguments) -> "list[SourceClip]":
    from alm.captioning.inputs import list_clips
    from alm.captioning.transcripts import Transcripts, read_transcripts

    transcripts = None
    if args.append_transcripts:
        transcripts = Transcripts(read_transcripts(Path(args.transcripts)) if args.transcripts else None)
    return list_clips(args.audio, Path(args.output), args.kind, transcripts)[: args.limit]


def print_plan(args: CaptionArguments, clips: "list[SourceClip]", output: "Output") -> None:
    from alm.captioning import cost
    from alm.captioning.run import is_current

    rows = {row["id"]: row for row in output.logged()}
    left = [clip for clip in clips if clip.name not in rows or not is_current(rows[clip.name], clip)]
    again = [clip for clip in clips if args.retry_failed and rows.get(clip.name, {}).get("status") == "failed"]
    print(
        f"{len(clips):,} clips, {sum(clip.transcript is not None for clip in clips):,} with a transcript -> {output.table}"
    )
    if rows:
        print(f"{len(clips) - len(left):,} of them are in {output.log}")
    left += [clip for clip in again if clip not in left]
    rate = args.sampling_rate if args.server else 16_000
    estimate = cost.estimate(left, args.audio_tokens_per_second, rate, args.max_seconds)
    print(cost.render(estimate, args.retries, args.price_per_million_tokens, upload=bool(args.server)), flush=True)


def load_backend(args: CaptionArguments) -> "Backend":
    if args.server is None:
        from alm.chat.local import LocalModel

        return LocalModel(args.model, args.revision, args.device, args.dtype, args.max_new_tokens)
    from alm.chat.server import Server
    from alm.chat.transport import Http

    key = os.environ[args.api_key_env] if args.api_key_env else None
    http = Http(args.server, key, args.timeout, args.attempts)
    if http.key_in_the_open:
        print("warning: the key travels unencrypted to this server: https is missing in its address", file=sys.stderr)
    return Server(http, args.model, args.temperature, args.max_new_tokens, args.sampling_rate)


def caption(
    args: CaptionArguments, clips: "list[SourceClip]", output: "Output", backend: "Backend", command: list[str]
) -> None:
    from alm.captioning.prompts import PROMPT_ID, prompt_hash
    from alm.captioning.run import Limits, caption_clips, is_current
    from alm.scoring.manifest import environment

    settings = {**backend.settings, "max_seconds": args.max_seconds, "prompt_id": PROMPT_ID, "prompt": prompt_hash()}
    limits = Limits(args.retries, args.max_failures, args.max_seconds, args.workers if args.server else 1)
    by_name = {clip.name: clip for clip in clips}

    def is_done(row: dict[str, Any]) -> bool:
        clip = by_name.get(row["id"])  # rows of clips that are not asked for now are kept
        return (clip is None or is_current(row, clip)) and not (args.retry_failed and row["status"] == "failed")

    with output.open_log(settings, is_done, args.overwrite) as log:
        caption_clips(clips, backend, log, limits)
        manifest = {
            "settings": settings,
            "model": args.model,
            "revision": getattr(backend, "commit", None) or args.revision,
            "transcripts_appended": args.append_transcripts,
            **environment(command),
        }
        counts = output.write(clips, log.rows, manifest)
    print(
        f"{counts['captioned']:,} captions in {output.table}, {counts['failed']:,} failed"
        + (f" (listed in {output.failed}; --retry_failed tries them again)" if counts["failed"] else "")
        + f"; {counts['requests']:,} requests, {counts['prompt_tokens']:,} prompt and {counts['answer_tokens']:,} answer tokens"
    )


if __name__ == "__main__":
    run_main(main)
