"""A reply's rule as a grammar: for vLLM and SGLang (xgrammar's EBNF over token ids), and for llama.cpp (GBNF).

xgrammar matches tokens by id, `Token(343, 344)`, so its grammar is the rule itself: text that spells `<|audio_0_1|>` out of ordinary
tokens does not pass for a code. llama.cpp knows single ids only, `<[343]>`, and walks every alternative at every step (16,384 of them
take 0.3 s a token); there the codes are written as strings, a few rules for any size, and only start and end are ids. A model that
spelled a code letter by letter would satisfy it; a text API shows the same reply either way, and `alm.serving.messages.read_reply` reads it.
"""

from collections.abc import Iterator

from alm.serving.spans import ReplyRule


def ebnf(rule: ReplyRule) -> str:
    """The rule for xgrammar: vLLM's `structured_outputs={"grammar": …}`, SGLang's `ebnf`. One line for each codebook.

    Outside spans any token but the audio vocabulary's is text, as in `ReplyRule`; xgrammar itself lets stop tokens through only where
    a reply may end.
    """
    vocabulary = rule.vocabulary
    books = [
        f"book-{k} ::= Token({_ids(vocabulary.first_id + k * vocabulary.codebook_size, vocabulary.codebook_size)})"
        for k in range(vocabulary.num_codebooks)
    ]
    audio = sorted({vocabulary.start_id, vocabulary.end_id, vocabulary.placeholder_id})
    codes = _ids(vocabulary.first_id, vocabulary.size)
    text = f"text ::= ExcludeToken({', '.join(map(str, audio))}, {codes})"
    frame = "frame ::= " + " ".join(f"book-{k}" for k in range(vocabulary.num_codebooks))
    span = f"span ::= Token({vocabulary.start_id}) frame{_times(rule)} Token({vocabulary.end_id})"
    root = {"speech": "root ::= span", "mixed": "root ::= (text | span)*", "text": "root ::= text*"}[rule.mode]
    parts = [root, *([] if rule.mode == "text" else [span, frame, *books])]
    return "\n".join([*parts, *([] if rule.mode == "speech" else [text])]) + "\n"


def gbnf(rule: ReplyRule) -> str:
    """The rule for llama.cpp's `grammar` (a string over codes, ids at start and end; see the module's text).

    In text, the two characters `<|` never stand together, so that no control or audio token can be spelled in it. llama.cpp takes
    at most 2,000 repetitions, so `rule.maximum` is at most that.
    """
    vocabulary = rule.vocabulary
    number = f"number ::= {' | '.join(_below(vocabulary.codebook_size))}"
    frame = "frame ::= " + " ".join(f'"<|audio_{k}_" number "|>"' for k in range(vocabulary.num_codebooks))
    start, end = f"<[{vocabulary.start_id}]>", f"<[{vocabulary.end_id}]>"
    span = f"span ::= {start} frame{_times(rule)} {end}"
    text = 'text ::= [^<] | "<"+ [^<|]'
    root = {
        "speech": "root ::= span",
        "mixed": 'root ::= (text | "<"* span)* "<"*',
        "text": 'root ::= text* "<"*',
    }[rule.mode]
    parts = [root, *([] if rule.mode == "text" else [span, frame, number])]
    return "\n".join([*parts, *([] if rule.mode == "speech" else [text])]) + "\n"


def _ids(first: int, count: int) -> str:
    return ",".join(map(str, range(first, first + count)))


def _times(rule: ReplyRule) -> str:
    return f"{{{rule.minimum},{rule.maximum}}}"


def _below(size: int) -> Iterator[str]:
    """Alternatives that together match the decimal numbers 0 … size - 1, without leading zeros."""
    last = str(size - 1)
    if len(last) > 1:
        yield '"0"'
        yield f"[1-9] [0-9]{{0,{len(last) - 2}}}"
    for place, digit in enumerate(last):
        lowest = 1 if place == 0 and len(last) > 1 else 0
        if int(digit) > lowest:
            head = f'"{last[:place]}" ' if place else ""
            rest = len(last) - place - 1
            yield f"{head}[{lowest}-{int(digit) - 1}]" + (f" [0-9]{{{rest}}}" if rest else "")
    yield f'"{last}"'
