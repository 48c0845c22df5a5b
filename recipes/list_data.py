"""Show what data sets hold before anything is trained on them: rows, clips, hours, what is missing or dropped, licences, examples.

    python recipes/list_data.py --data "audiocaps=DATA/audiocaps,audio=DATA/audiocaps/clips,split=train" musicqa=DATA/musicqa \\
        --guard DATA/audiocaps/test.csv DATA/clotho/clotho_captions_evaluation.csv --hours

A source is NAME=PATH,OPTION=VALUE,…: --data alone lists the names and their options. PATH is the data set's own folder or metadata
file, or an id of the Hub. --guard takes the metadata files of test sets, whose clips are kept out and counted.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from alm.arguments import parse_arguments, run_main

if TYPE_CHECKING:
    from alm.data.catalogue import Source
    from alm.data.example import Example, ReadReport
    from alm.data.leaks import LeakGuard


@dataclass
class ListArguments:
    data: list[str] = field(default_factory=list, metadata={"help": "Sources, NAME=PATH,OPTION=VALUE,… each."})
    guard: list[str] = field(default_factory=list, metadata={"help": "Metadata files of test sets to keep out."})
    hours: bool = field(default=False, metadata={"help": "Read the header of every clip for the hours."})
    workers: int = field(default=8, metadata={"help": "Threads that read headers."})
    examples: int = field(default=3, metadata={"help": "Examples to print of each source."})
    limit: int | None = field(default=None, metadata={"help": "Read so many examples of each source only."})
    max_missing: float = field(default=0.1, metadata={"help": "Share without audio above which training would stop."})

    def __post_init__(self) -> None:
        if not 0 <= self.max_missing <= 1:
            raise ValueError(f"--max_missing is a share from 0 to 1, got {self.max_missing}")
        if self.workers < 1:
            raise ValueError("--workers must be at least 1")


@dataclass
class Totals:
    """What was seen of a source: clips (each once), their seconds, and clips whose length is not known."""

    clips: set[int] = field(default_factory=set)
    seconds: float = 0.0
    unknown: int = 0
    first: list["Example"] = field(default_factory=list)


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(ListArguments, argv, description=__doc__)
    from alm.data.catalogue import Source
    from alm.data.leaks import LeakGuard

    if not args.data:
        print_catalogue()
        return
    sources = [Source.parse(text) for text in args.data]
    guard = LeakGuard.from_files(args.guard)
    for line in guard.listed:
        print(f"kept out: {line}")
    for source in sources:
        list_source(source, guard, args)
    if args.guard:
        print(guard.summary())


def print_catalogue() -> None:
    from alm.data.catalogue import CATALOGUE, options_of

    for name, data_set in CATALOGUE.items():
        print(f"{name:<12} {data_set.kind:<22} {data_set.licence} [{data_set.stated}]")
        print(f"{'':<12} options: {', '.join(options_of(name))}")


def list_source(source: "Source", guard: "LeakGuard", args: ListArguments) -> None:
    from alm.data.catalogue import CATALOGUE, read_source
    from alm.data.example import ReadReport

    print(f"\n{source}\n  licence   {CATALOGUE[source.name].licence} [{CATALOGUE[source.name].stated}]")
    report, totals = ReadReport(source.name), Totals()
    found = islice(read_source(source, report, None, guard), args.limit)
    for seconds in lengths(clips_of(found, totals, args.examples), args.workers if args.hours else 0):
        totals.seconds += seconds or 0.0
        totals.unknown += seconds is None
    print_totals(report, totals, args)


def clips_of(examples: Iterable["Example"], totals: Totals, keep: int) -> Iterator[tuple[Any, Any]]:
    """`(audio item, seconds that the data set states, or None)` of each clip, once."""
    for example in examples:
        if len(totals.first) < keep:
            totals.first.append(example)
        for item in example.audio_items():
            identity = hash(item.get("bytes") or item["path"])  # 64 bits: neither paths nor bytes are kept
            if identity not in totals.clips:
                totals.clips.add(identity)
                yield item, example.meta.get("seconds")


def lengths(clips: Iterable[tuple[Any, Any]], workers: int) -> Iterator[float | None]:
    """Seconds of each clip, None where unknown; headers are read in `workers` threads, a bounded number ahead (0: none are read)."""
    from codec.audio import AudioError, read_header

    def measure(item: Any) -> float | None:
        try:
            seconds = read_header(item.get("bytes") or item["path"]).seconds
        except AudioError:
            return None
        return seconds if seconds == seconds else None

    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting: deque[Future[float | None]] = deque()
        for item, stated in clips:
            if isinstance(stated, int | float) or not workers:
                yield stated
                continue
            waiting.append(pool.submit(measure, item))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)


def print_totals(report: "ReadReport", totals: Totals, args: ListArguments) -> None:
    from alm.data.example import AUDIO_MISSING

    known = len(totals.clips) - totals.unknown
    hours = f"{totals.seconds / 3600:.2f} (of {known:,} clips)" if known else "not read (--hours)"
    print(
        f"  rows      {report.rows:,}" + (f", the first {args.limit} examples only" if args.limit is not None else "")
    )
    print(f"  examples  {report.examples:,}\n  clips     {len(totals.clips):,}\n  hours     {hours}")
    if args.hours and totals.unknown:
        print(f"  warning   {totals.unknown:,} clips whose header cannot be read or states no length")
    lost = report.dropped[AUDIO_MISSING]
    over = lost > args.max_missing * (report.examples + lost)
    first = f", the first {report.missing_audio[0]}" if report.missing_audio else ""
    print(f"  missing   {lost:,}{first}" + (f": over {args.max_missing:.0%}, training would stop" * over))
    for reason, count in report.dropped.items():
        if reason != AUDIO_MISSING and count:
            print(f"  dropped   {count:,} {reason}")
    for test_set, count in report.excluded.items():
        print(f"  kept out  {count:,} in {test_set}")
    if report.unchecked:
        print(f"  unchecked {report.unchecked:,} whose clip's origin is not known")
    for example in totals.first:
        print(f"  {example.id}")
        for message in example.messages:
            print(f"    {message['role']:<9} {' '.join(show(item) for item in message['content'])}")


def show(item: dict[str, Any]) -> str:
    if item["type"] == "text":
        return repr(item["text"]) if len(item["text"]) <= 160 else f"{item['text'][:160]!r}…"
    size = f" ({len(item['bytes']):,} bytes)" if "bytes" in item else ""
    return f"<audio {item.get('path', 'without a name')}{size}>"


if __name__ == "__main__":
    run_main(main)
