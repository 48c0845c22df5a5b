"""Memory of encoding and decoding against the length of the clip: is it linear?

    python benchmarks/codec_memory.py [--codec recipes/configs/tiny/codec.yaml] [--minutes 1 2 5 10]

Each length runs in a process of its own, random weights. Prints the peak above the loaded model, that per minute of audio, and CPU
seconds.
"""

import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field

from alm.arguments import parse_arguments, read_numbers, run_main


@dataclass
class MemoryArguments:
    codec: str = field(
        default="recipes/configs/tiny/codec.yaml", metadata={"help": "YAML of EntangleCodecConfig's numbers"}
    )
    minutes: list[float] = field(default_factory=lambda: [1, 2, 5, 10], metadata={"help": "lengths"})
    decode: bool = field(default=False, metadata={"help": "decode the codes too (mel only)"})
    one: bool = field(default=False, metadata={"help": "measure the one length given in this very process"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(MemoryArguments, argv, description=__doc__)
    if args.one:
        megabytes, seconds = measure(args.codec, args.minutes[0], args.decode)
        print(
            f"{args.minutes[0]:6g} min  {megabytes:8.0f} MB  {megabytes / args.minutes[0]:7.1f} MB a minute  {seconds:7.1f} CPU s"
        )
        return
    for minutes in args.minutes:
        more = ["--decode", "true"] if args.decode else []
        flags = ["--one", "true", "--codec", args.codec, "--minutes", str(minutes), *more]
        subprocess.run([sys.executable, __file__, *flags], check=True)


def measure(codec: str, minutes: float, decode: bool) -> tuple[float, float]:
    """Peak memory above the loaded model in MB, and CPU seconds, of one clip."""
    import numpy as np
    import torch

    from codec import EntangleCodec, EntangleCodecConfig, EntangleCodecModel

    torch.manual_seed(0)
    config = EntangleCodecConfig(**{**read_numbers(codec), "max_audio_seconds": 60.0 * minutes + 1})
    model = EntangleCodec(EntangleCodecModel(config).requires_grad_(False))
    rng = np.random.default_rng(0)

    def run(waveform: "np.ndarray") -> None:
        codes = model.encode([waveform.astype(np.float32)])
        if decode:
            with torch.inference_mode():
                model.model.decode(torch.from_numpy(codes[0])[None], vocode=False)

    run(0.1 * rng.standard_normal(24_000))  # what is allocated once
    waveform = 0.1 * rng.standard_normal(round(60 * minutes * config.sampling_rate), dtype=np.float32)
    unit = 1e6 if sys.platform == "darwin" else 1e3  # ru_maxrss is in bytes there, in kB elsewhere
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    run(waveform)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit, time.process_time() - start


if __name__ == "__main__":
    run_main(main)
