"""Speech synthesis by SEED-TTS-eval: word error rates, speaker similarity, naturalness, stop rate, duration.

    python eval/seed_tts.py --meta seedtts_testset/en/meta.lst --language en --model CHECKPOINT --zero_shot --output runs/seed_en.json
    accelerate launch --multi_gpu --num_processes 8 eval/seed_tts.py --device cuda …   (a share of speaking and listening each)
    python eval/seed_tts.py --meta meta.lst --language zh --audio DIR              (any system's files, DIR/<id>.wav)
    python eval/seed_tts.py --meta meta.lst --language en --transcripts FILE.json  (what any recogniser has heard)

`wer_macro` is the benchmark's own figure, `wer_pooled` the same rule over all words, `wer_corpus` in Whisper's normal form. What
cannot be had here is null with the way to get it. The model's sounds lie in NAME.audio/, told by NAME.outputs.jsonl, the figures of each
in NAME.items.jsonl: --resume goes on from either, also with another recogniser. The recogniser's own errors are the figures of
`--audio` with the original recordings.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alm.arguments import option, parse_arguments, require_output, run_main
from alm.data import seed_tts
from alm.data.example import DataError
from alm.scoring.processes import launched
from alm.scoring.synthesis_run import SynthesisArguments, generate


@dataclass(kw_only=True)
class SeedTtsArguments(SynthesisArguments):
    meta: str = field(
        metadata={"help": "the list of utterances: meta.lst, or a list of its kin (alm/data/seed_tts.py)"}
    )
    language: str = field(metadata={"help": "en or zh"})
    model: str | None = option(None, "checkpoint that speaks: a local folder or a Hub id")
    transcripts: str | None = option(
        None, "what has been heard, to be scored without a recogniser (JSON or CSV); alone, or with --audio"
    )
    zero_shot: bool = option(False, "the model speaks each text after the list's prompt; else the text alone")
    prompts: str | None = option(None, "folder of the list's prompt files, where it is not the list's own")
    asr: str | None = option(
        None,
        "recogniser: a folder (Transformers, CTranslate2, FunASR), a Hub id, or pocketsphinx; default: "
        "openai/whisper-large-v3 for en, funasr/paraformer-zh for zh",
    )
    metrics: list[str] = field(
        default_factory=lambda: ["sim", "utmos"],
        metadata={
            "help": "further figures: sim (with the prompt), utmos; also sim_xvector, sim_ge2e, distillmos, audiobox"
        },
    )
    allow_missing: bool = option(False, "utterances without a sound are counted, as spoken in silence, and no error")
    output: str = option("runs/seed_tts.json", "result file")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_output(self.output, self.meta, self.transcripts)
        if self.language not in ("en", "zh"):
            raise ValueError(f"--language is en or zh, got {self.language!r}")
        if (self.model is None) == (self.audio is None and self.transcripts is None):
            raise ValueError("give either --model CHECKPOINT, or --audio FOLDER, --transcripts FILE or both of these")
        if self.zero_shot and not self.model:
            raise ValueError("--zero_shot needs --model")
        if self.asr and self.transcripts:
            raise ValueError("--transcripts are scored as they are; without --asr")

    @property
    def folder(self) -> Path:
        return Path(self.prompts) if self.prompts else Path(self.meta).parent


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(SeedTtsArguments, argv, description=__doc__)
    data = seed_tts.read(args.meta)
    items = data.items[: args.limit]
    equipment, processes = find_equipment(args), launched()
    if args.dry_run:
        if processes.is_main:
            print(plan(args, items, equipment))
        return

    from alm.scoring.manifest import code_version, environment, resume_key
    from alm.scoring.results import write_result
    from alm.scoring.sound.table import render
    from alm.scoring.speech.listening import fingerprints, listen, require_takes, still_valid
    from alm.scoring.speech.summary import build

    takes, source = speak(args, items) if args.model else stored(args, items)
    if not args.allow_missing:
        require_takes(items, takes, " with ".join(filter(None, (args.model, args.audio, args.transcripts))))
    listener = equipment.load(processes.device(args.device), args.folder)
    of = fingerprints(items, takes, listener)
    key = resume_key(**equipment.labels, language=args.language, code=code_version())
    with processes.open_log(args.beside(".items.jsonl"), key, args.resume, still_valid(of)) as log:
        rows = listen(items, takes, of, listener, log, args.allow_missing, processes)
    if not processes.is_main:
        return
    manifest = {
        "data": Path(args.meta).name,
        "data_sha256": data.sha256,
        "limit": args.limit,
        **source,
        "metrics": equipment.labels,
        "heard": "the whole of each utterance, resampled to 16 kHz by soxr HQ",
        "missing": "as if nothing had been heard",
        **environment(["python", "eval/seed_tts.py", *(sys.argv[1:] if argv is None else argv)]),
    }
    system = args.system or Path(args.model or args.audio or args.transcripts or "").name
    names = args.beside(".items.jsonl").name
    result = build(args.language, system, rows, equipment.chosen, equipment.unavailable, manifest, names)
    write_result(result, args.output)
    print(render(result))
    print(f"\nresult: {args.output}; rows of the utterances: {args.beside('.items.jsonl')}")


def find_equipment(args: SeedTtsArguments) -> Any:
    """What there is to score with, and why not the rest."""
    from alm.scoring.speech.equipment import equip
    from alm.scoring.speech.recognition import DEFAULT, PARAFORMER

    lacking: dict[str, str] = {}
    if not args.model:
        lacking["stop_rate"] = "whether a model ended its sound itself is known of --model alone"
    if not args.model and not args.audio:
        lacking["sound"] = "stored transcripts have no sound; score its files, too: --audio FOLDER"
    if args.model and not args.zero_shot:
        lacking["prompt"] = "the model has not heard the prompts' voices: --zero_shot lets it"
    asr = None if args.transcripts else args.asr or {"en": DEFAULT, "zh": PARAFORMER}[args.language]
    asked = bool(args.asr or args.transcripts)
    return equip(args.language, asr, asked, args.metrics, args.require, args.paths, lacking)


def plan(args: SeedTtsArguments, items: Any, equipment: Any) -> str:
    lines = [f"{len(items):,} utterances of {args.meta}, {args.language}"]
    if args.model:
        prompt = "after the list's prompt" if args.zero_shot else "alone"
        lines.append(f"model {args.model} on {args.device}, each text {prompt}, to {args.beside('.audio')}")
    else:
        lines.append(f"{len(stored(args, items)[0]):,} of them in {args.audio or args.transcripts}")
    lines += [f"{name:<14} {label}" for name, label in equipment.labels.items()]
    return "\n".join([*lines, *(f"{name:<14} not available: {why}" for name, why in equipment.unavailable.items())])


def stored(args: SeedTtsArguments, items: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Takes of `--audio` and `--transcripts`, and what the manifest says of them."""
    import hashlib

    from alm.scoring.speech.listening import find_takes
    from alm.scoring.speech.transcripts import transcript_takes

    source: dict[str, Any] = {}
    takes: dict[str, Any] = {}
    if args.audio:
        if not Path(args.audio).is_dir():
            raise DataError(f"--audio {args.audio}: no such folder")
        takes, source["audio"] = find_takes(items, Path(args.audio)), Path(args.audio).name
    if args.transcripts:
        path = Path(args.transcripts)
        heard = transcript_takes(items, path)
        both = {name: takes[name]._replace(transcript=take.transcript) for name, take in heard.items() if name in takes}
        takes = both if args.audio else heard
        source |= {"transcripts": path.name, "transcripts_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return takes, source


def speak(args: SeedTtsArguments, items: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Takes of `--model`, likewise."""
    from alm.prompts import speech_messages
    from alm.scoring.speech.listening import Take
    from alm.scoring.speech.synthesis import PROMPT_IDS, requests

    asked = requests(items, args.folder if args.zero_shot else None, args.seed)
    rows, folder, source = generate(args, asked, PROMPT_IDS[args.zero_shot], speech_messages(""))
    return {name: Take(folder / f"{name}.wav", stopped=row["stopped"]) for name, row in rows.items()}, source


if __name__ == "__main__":
    run_main(main)
