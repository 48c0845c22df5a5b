"""Whether sounds made from captions are those asked for: an offline classifier of the demo corpus's sounds, trained on its recordings.

    python benchmarks/small_sounds.py --model runs/small/speaker --corpus runs/small/corpus --output runs/small/sounds.json

Captions of the form "A siren wails. In the background wind howls. …" name an event and a background. A linear classifier of a clip's
log-mel statistics (mean, deviation and mean step of each of 128 bands; no pretrained weights, nothing that knows other sounds) learns
both from four fifths of the clips and is asked about the last fifth as recorded, through the codec, and made anew from its captions by
the model; the last also with the captions shuffled, which is the chance that matters.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alm.arguments import parse_arguments, run_main


@dataclass
class SoundArguments:
    model: str = field(metadata={"help": "checkpoint that makes sounds"})
    corpus: str = field(metadata={"help": "folder of the demo corpus"})
    output: str = field(metadata={"help": "JSON file to write; the sounds are kept beside it"})
    temperature: float = field(default=0.8, metadata={"help": "of generation"})
    top_p: float = field(default=0.95, metadata={"help": "of generation"})
    guidance_scale: float = field(default=1.0, metadata={"help": "of generation"})
    seed: int = field(default=0, metadata={"help": "of generation"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(SoundArguments, argv, description=__doc__)
    import numpy as np

    from alm.checkpoint import load_checkpoint
    from alm.generation import Sampling, make_sound
    from codec.audio import read_audio

    model, processor = load_checkpoint(args.model)
    codec, clips = processor.codec, labelled(Path(args.corpus) / "audiocaps")
    held_out = clips[::5]
    learned = [clip for clip in clips if clip not in held_out]
    rate = codec.sampling_rate
    classify = {
        what: classifier(
            np.stack([features(read_audio(clip["path"], rate), rate) for clip in learned]),
            [clip[what] for clip in learned],
        )
        for what in ("event", "background")
    }
    originals = [read_audio(clip["path"], rate) for clip in held_out]
    made = make_sound(
        model,
        processor,
        [clip["caption"] for clip in held_out],
        sampling=Sampling(args.temperature, top_p=args.top_p),
        guidance_scale=args.guidance_scale,
        seed=args.seed,
        max_seconds=6.0,
    )
    folder = Path(args.output).with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for number, (clip, sound) in enumerate(zip(held_out, made, strict=True)):
        sound.save(folder / f"{number:03d}.wav")
        (folder / f"{number:03d}.txt").write_text(clip["caption"] + "\n")
    sounds = {
        "recorded": originals,
        "through the codec": [codec.decode(codec.encode([one]))[0] for one in originals],
        "made from captions": [one.waveform for one in made],
    }
    sounds["made, captions shuffled"] = sounds["made from captions"][1:] + sounds["made from captions"][:1]
    table: dict[str, Any] = {"n": len(held_out), "stopped": float(np.mean([not one.forced_end for one in made]))}
    for name, waveforms in sounds.items():
        rows = np.stack([features(one, rate) for one in waveforms])
        right = {
            what: [a == b[what] for a, b in zip(named(rows), held_out, strict=True)] for what, named in classify.items()
        }
        table[name] = {what: interval(values) for what, values in right.items()}
        print(name, table[name])
    Path(args.output).write_text(json.dumps({"settings": vars(args), **table}, indent=2) + "\n")


def labelled(folder: Path) -> list[dict[str, Any]]:
    """Clips of one event over one background, with both names."""
    from alm.data.catalogue import Source, read_source
    from alm.data.demo.captions import EVENT_PHRASES, TEXTURE_PHRASES
    from alm.data.example import ReadReport

    events, backgrounds = ({text: name for name, text in table.items()} for table in (EVENT_PHRASES, TEXTURE_PHRASES))
    clips = []
    for example in read_source(
        Source("audiocaps", str(folder), {"audio": str(folder / "audio")}), ReadReport("audiocaps")
    ):
        (audio,), (text,) = (message["content"] for message in example.messages)
        found = re.match(r"([A-Z][^.]+)\. (?:In the background ([^.]+)\.)?", text["text"])
        event = found and events.get(found[1][0].lower() + found[1][1:])
        if found and event and found[2] in backgrounds:
            clips.append(
                {"path": audio["path"], "caption": text["text"], "event": event, "background": backgrounds[found[2]]}
            )
    return clips


def features(waveform: Any, rate: int) -> Any:
    """Mean, deviation and mean absolute step of a clip's log-mel bands: `(384,)`."""
    import torch

    from codec.mel import MelSpec, log_mel

    mel = log_mel(torch.as_tensor(waveform, dtype=torch.float32)[None], MelSpec(sampling_rate=rate))[0]
    return torch.cat([mel.mean(0), mel.std(0), mel.diff(dim=0).abs().mean(0)]).numpy()


def classifier(rows: Any, labels: list[str]) -> Any:
    """Multinomial logistic regression on standardised features, with weight decay; a function from rows to names."""
    import torch

    names = sorted(set(labels))
    mean, deviation = rows.mean(0), rows.std(0) + 1e-6
    x = torch.as_tensor((rows - mean) / deviation)
    y = torch.tensor([names.index(label) for label in labels])
    layer = torch.nn.Linear(x.shape[1], len(names))
    torch.nn.init.zeros_(layer.weight)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01, weight_decay=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(x), y).backward()
        optimizer.step()
    return lambda new: [names[i] for i in layer(torch.as_tensor((new - mean) / deviation)).argmax(-1).tolist()]


def interval(right: list[bool]) -> dict[str, float]:
    """Share that is right, with Wilson's 95 % interval."""
    from alm.scoring.statistics import wilson

    found = wilson(sum(right), len(right))
    return {"value": round(found.value, 3), "low": round(found.low, 3), "high": round(found.high, 3)}


if __name__ == "__main__":
    run_main(main)
