"""What a reply may be (`alm.generation.grammar`), written for engines that read grammars: xgrammar's EBNF and llama.cpp's GBNF.

xgrammar (vLLM, SGLang) matches tokens by id, `Token(343,344)`, so its form is exact: text that spells `<|audio_0_1|>` out of ordinary
tokens does not pass for a code. llama.cpp knows single ids, `<[343]>`, and tries every alternative at every step (16,384 of them: 0.3 s
a token); there codes are strings, a few rules for any size, and only start and end are ids. A model that spelled a code in letters would
satisfy that; in a text API's reply the two are one, and `alm.serving.messages.read_reply` reads both.
"""

import math
from collections.abc import Iterable, Iterator

from alm.data.example import DataError
from alm.generation.grammar import AudioGrammar
from alm.vocabulary import AudioVocabulary


def reply_grammar(
    vocabulary: AudioVocabulary,
    spans: int = 1,
    text: bool = False,
    min_seconds: float = 0.02,
    max_seconds: float = 30.0,
) -> AudioGrammar:
    """The grammar with a span's limits in seconds, both kept: the least rounded up to whole frames, the most down.

    Raises `DataError` where no span of whole frames lies between them.
    """
    rate = vocabulary.frame_rate
    try:
        # 1e-6: 0.58 s × 50 are 28.999999999999996 frames
        least, most = math.ceil(float(min_seconds) * rate - 1e-6), math.floor(float(max_seconds) * rate + 1e-6)
        return AudioGrammar(vocabulary, max(least, 1), most, bool(text), int(spans))
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"audio of {min_seconds} to {max_seconds} s, {spans} spans, text {text}: {error}; a frame is {1 / rate:g} s"
        ) from error


def ebnf(grammar: AudioGrammar) -> str:
    """The grammar for vLLM's `structured_outputs={"grammar": …}` and SGLang's `ebnf`: one line for each codebook.

    Stop tokens are not in it: xgrammar lets them through where a reply may end, and nowhere else.
    """
    voc = grammar.vocabulary
    size = voc.codebook_size
    books = [
        f"book{k} ::= Token({_ids(range(voc.first_id + k * size, voc.first_id + (k + 1) * size))})"
        for k in range(voc.num_codebooks)
    ]
    frame = " ".join(f"book{k}" for k in range(voc.num_codebooks))
    audio = _ids([voc.start_id, voc.end_id, voc.placeholder_id, *range(voc.first_id, voc.rows)])
    return _rules(
        grammar, f"Token({voc.start_id})", frame, f"Token({voc.end_id})", books, [f"text ::= ExcludeToken({audio})"]
    )


def gbnf(grammar: AudioGrammar) -> str:
    """The grammar for llama.cpp's `grammar`: codes as strings, start and end as ids.

    In text `<|` never stands, so that no control or audio token can be spelled there.
    """
    voc = grammar.vocabulary
    frame = " ".join(f'"<|audio_{k}_" number "|>"' for k in range(voc.num_codebooks))
    number = [f"number ::= {' | '.join(_numbers_below(voc.codebook_size))}"]
    return _rules(
        grammar, f"<[{voc.start_id}]>", frame, f"<[{voc.end_id}]>", number, ['text ::= [^<] | "<"+ [^<|]'], '"<"*'
    )


def _rules(
    grammar: AudioGrammar, start: str, frame: str, end: str, codes: list[str], text: list[str], last: str = ""
) -> str:
    """Root, span and the rules below them; `last` is what `text` cannot say at the end of a text."""
    least, most = (0 if grammar.text else grammar.max_spans), grammar.max_spans
    between = f"text* {last}".strip()
    root = (
        f"root ::= {between} (span {between}){{{least},{most}}}" if grammar.text else f"root ::= span{{{least},{most}}}"
    )
    span = f"span ::= {start} frame{{{grammar.min_frames},{grammar.max_frames}}} {end}"
    if not most:
        return "\n".join([f"root ::= {between}", *text, ""])
    return "\n".join([root, span, f"frame ::= {frame}", *codes, *(text if grammar.text else []), ""])


def _ids(ids: Iterable[int]) -> str:
    return ",".join(map(str, ids))


def _numbers_below(size: int) -> Iterator[str]:
    """Alternatives that together match the decimal numbers 0 … size − 1, without leading zeros."""
    last = str(size - 1)
    if len(last) > 1:
        yield '"0"'
        yield f"[1-9] [0-9]{{0,{len(last) - 2}}}"
    for place, digit in enumerate(last):
        lowest = 1 if place == 0 and len(last) > 1 else 0
        if int(digit) > lowest:
            head, rest = last[:place], len(last) - place - 1
            tail = f" [0-9]{{{rest}}}" if rest else ""
            yield (f'"{head}" ' if head else "") + f"[{lowest}-{int(digit) - 1}]{tail}"
    yield f'"{last}"'
