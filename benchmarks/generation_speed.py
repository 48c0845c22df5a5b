"""Audio tokens per second: the sliced head against the whole head and against Transformers' `generate` with the same grammar.

    python benchmarks/generation_speed.py [--shape 0.6B] [--batch 1] [--dtype float32] [--codec runs/demo/codec]

A Qwen3 of the real shape with random weights, its vocabulary grown by 16,384 codes, speaks two seconds (100 tokens) in each of three
ways, in turn: `generate` with the grammar as a logits processor, our loop over the whole head, our loop over the slice. The tokens of all
three are held equal. Prints CPU seconds a token, the ratios (above 1: the slice is quicker; target 1.25 at 0.6B) with their spread, and
the peak memory. With --codec also the time to the first chunk of streamed speech, and how near the stream comes to the offline decode.
"""

import resource
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from alm.arguments import parse_arguments, run_main

# hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, tied (https://huggingface.co/Qwen/Qwen3-0.6B and its sisters)
SHAPES = {
    "tiny": (256, 768, 4, 4, True),
    "0.6B": (1024, 3072, 28, 16, True),
    "1.7B": (2048, 6144, 28, 16, True),
    "4B": (2560, 9728, 36, 32, True),
}
TEXT_IDS, CODES = 151_669, 16_384


@dataclass
class BenchmarkArguments:
    shape: str = field(default="0.6B", metadata={"help": "size of the model", "choices": list(SHAPES)})
    batch: int = field(default=1, metadata={"help": "sentences at once"})
    tokens: int = field(default=100, metadata={"help": "audio tokens of each sentence; 50 are a second"})
    prompt_tokens: int = field(default=32, metadata={"help": "tokens of the request"})
    dtype: str = field(default="float32", metadata={"help": "type of the weights", "choices": ["float32", "bfloat16"]})
    repeats: int = field(default=5, metadata={"help": "rounds, each way once in each"})
    codec: str | None = field(default=None, metadata={"help": "codec whose decoding is streamed: folder or Hub id"})
    audio: str | None = field(
        default=None, metadata={"help": "with --codec: folder of recordings whose codes are streamed"}
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(BenchmarkArguments, argv, description=__doc__)
    import torch

    from alm.generation.decoding import GrammarDecoder
    from alm.generation.grammar import AudioGrammar

    model, vocabulary = random_model(args.shape, getattr(torch, args.dtype))
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{args.shape}, {parameters:,} parameters, {args.dtype}, {vocabulary.rows:,} rows, batch {args.batch}")
    grammar = AudioGrammar(vocabulary, args.tokens, args.tokens)
    tokenizer: Any = SimpleNamespace(get_vocab=lambda: {str(i): i for i in range(vocabulary.end)})
    prompts = torch.randint(TEXT_IDS - 8, (args.batch, args.prompt_tokens), generator=torch.Generator().manual_seed(0))
    room = grammar.max_span_ids + 1

    def ours(sliced: bool) -> list[list[int]]:
        return [
            turn.ids for turn in GrammarDecoder(model, tokenizer, grammar, sliced=sliced).turns(prompts.tolist(), room)
        ]

    ways = {
        "generate": lambda: plain_generate(model, tokenizer, grammar, prompts, room),
        "whole head": lambda: ours(False),
        "sliced head": lambda: ours(True),
    }
    seconds = {name: [] for name in ways}
    for turn in range(args.repeats + 1):
        made = {}
        for name, way in ways.items():
            start = time.process_time()
            made[name] = way()
            if turn:  # the first round warms up
                seconds[name].append(time.process_time() - start)
        if not made["generate"] == made["whole head"] == made["sliced head"]:
            raise AssertionError("the three ways gave different tokens")
    for name, spent in seconds.items():
        print(f"{name:<12} {1000 * statistics.median(spent) / room:8.1f} CPU-ms a step")
    for name in ("generate", "whole head"):
        ratios = sorted(a / b for a, b in zip(seconds[name], seconds["sliced head"], strict=True))
        print(f"{name} / sliced head: {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]")
    print(
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, tokens equal in all {args.repeats + 1} rounds"
    )
    if args.codec:
        stream(args, statistics.median(seconds["sliced head"]) / room)


def random_model(shape: str, dtype: Any) -> Any:
    """A grown Qwen3 with random weights, and its contract (of no real tokenizer or codec)."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from alm.vocabulary import AudioVocabulary

    first = TEXT_IDS + 3
    rows = -(-(first + CODES) // 64) * 64
    hidden, intermediate, layers, heads, tied = SHAPES[shape]
    config = Qwen3Config(
        vocab_size=rows,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=min(8, heads),
        head_dim=128,
        tie_word_embeddings=tied,
        eos_token_id=TEXT_IDS - 1,
        pad_token_id=TEXT_IDS - 2,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    model = Qwen3ForCausalLM(config).eval()
    torch.set_default_dtype(before)
    nothing = "0" * 16
    vocabulary = AudioVocabulary(
        codec_fingerprint=nothing, sampling_rate=24_000, frame_rate=50.0, num_codebooks=1, codebook_size=CODES,
        first_id=first, start_id=TEXT_IDS, end_id=TEXT_IDS + 1, placeholder_id=TEXT_IDS + 2, stop_id=TEXT_IDS - 1,
        pad_id=TEXT_IDS - 2, rows=rows, tied=tied, tokenizer_hash=nothing, chat_template_hash=nothing,
    )  # fmt: skip
    return model, vocabulary


def plain_generate(model: Any, tokenizer: Any, grammar: Any, prompts: Any, room: int) -> list[list[int]]:
    """Transformers' own loop."""
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    from alm.generation.grammar import GrammarLogitsProcessor

    voc = grammar.vocabulary
    config = GenerationConfig(do_sample=False, max_new_tokens=room, eos_token_id=voc.stop_id, pad_token_id=voc.pad_id)
    processors = LogitsProcessorList([GrammarLogitsProcessor(grammar, tokenizer, prompts.shape[1])])
    output = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), generation_config=config, logits_processor=processors
    )
    return output[:, prompts.shape[1] :].tolist()


def stream(args: BenchmarkArguments, seconds_per_token: float) -> None:
    """First-chunk latency and distance from the offline decode, for several contexts."""
    import numpy as np

    from alm.data.example import DataError
    from alm.generation.streaming import StreamingDecoder
    from alm.scoring.reconstruction import log_mel_error
    from alm.scoring.sound.fidelity import MEL
    from codec.audio import AUDIO_SUFFIXES, read_audio
    from codec.zoo import load_codec

    codec = load_codec(args.codec)
    files = sorted(p for p in Path(args.audio or ".").rglob("*") if p.suffix in AUDIO_SUFFIXES)[:20]
    if not files:
        raise DataError(f"--audio {args.audio}: no recordings there; give a folder of them with --codec")
    clips = codec.encode([read_audio(path, codec.sampling_rate) for path in files])
    offline = codec.decode(clips)
    originals = [read_audio(path, codec.sampling_rate) for path in files]
    heard = np.mean([log_mel_error(one, made, MEL) for one, made in zip(originals, offline, strict=True)])
    print(f"{len(clips)} clips; the offline decode is {heard:.3f} from the original (log-mel L1, nats)")
    for chunk, left, right in ((25, 0, 0), (25, 25, 5), (25, 50, 10), (25, 100, 10), (25, 100, 25), (25, 200, 50)):
        far, spent = [], []
        for codes, whole in zip(clips, offline, strict=True):
            decoder = StreamingDecoder(codec, chunk, left, right)
            start = time.process_time()
            chunks = [*decoder.push(codes), *decoder.flush()]
            spent.append((time.process_time() - start) / len(chunks))
            far.append(log_mel_error(whole, np.concatenate(chunks), MEL))
        first = (chunk + right) * seconds_per_token + statistics.median(spent)
        print(
            f"chunk {chunk} left {left:>3} right {right:>2}: {np.mean(far):.3f} from the offline decode; "
            f"{1000 * statistics.median(spent):.0f} CPU-ms a chunk; first chunk after {first:.2f} CPU-s with this language model"
        )


if __name__ == "__main__":
    run_main(main)
