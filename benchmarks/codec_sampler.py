"""Steps and guidance of a codec's sampler (eq. 12): error and spread of the mel that its decoder makes, for each setting.

    python benchmarks/codec_sampler.py --codec CODEC --audio DIR [--steps 1 2 4 8] [--guidance 0 0.5 1]

Prints the mean absolute error of the log-mel in standard deviations and, in brackets, the deviation of the made mel over that of the
true one (above 1: overshoot, below: blur), means over the clips.
"""

from dataclasses import dataclass, field

from alm.arguments import parse_arguments, run_main


@dataclass
class SamplerArguments:
    codec: str = field(metadata={"help": "folder of an EntangleCodec"})
    audio: list[str] = field(metadata={"help": "folders of recordings, or text files that list them"})
    steps: list[int] = field(default_factory=lambda: [1, 2, 4, 8], metadata={"help": "numbers of Euler steps"})
    guidance: list[float] = field(default_factory=lambda: [0.0, 0.5, 1.0], metadata={"help": "values of γ"})
    limit: int = field(default=50, metadata={"help": "clips, spread evenly"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(SamplerArguments, argv, description=__doc__)
    import torch

    from alm.data.audio_files import find_audio
    from alm.scoring.sound.sources import thin
    from codec import EntangleCodec
    from codec.audio import read_audio

    codec = EntangleCodec.from_pretrained(args.codec)
    paths = thin(find_audio(args.audio).paths, 1, args.limit)
    clips = [read_audio(path, codec.sampling_rate) for path in paths]
    mels = [
        codec.feature_extractor(clip, sampling_rate=codec.sampling_rate, return_tensors="pt")["input_features"]
        for clip in clips
    ]
    with torch.inference_mode():
        codes = [codec.model.encode(mel).audio_codes for mel in mels]
        print(f"{len(clips)} clips\n{'γ':>6}" + "".join(f"{f'{n} step(s)':>18}" for n in args.steps))
        for guidance in args.guidance:
            cells = []
            for steps in args.steps:
                pairs = [
                    (codec.model.decode(code, None, steps, guidance, vocode=False).mel, mel)
                    for code, mel in zip(codes, mels, strict=True)
                ]
                error = sum(float((made - mel).abs().mean()) for made, mel in pairs) / len(pairs)
                spread = sum(float(made.std() / mel.std()) for made, mel in pairs) / len(pairs)
                cells.append(f"{error:.3f} ({spread:.2f})")
            print(f"{guidance:>6g}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    run_main(main)
