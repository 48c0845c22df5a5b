"""The data sets by name: their readers, their licences, and the one way to name a source of data on a command line or in YAML."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from alm.data import (
    audiocaps,
    audioset,
    clotho,
    clothoaqa,
    compa_r,
    folder,
    ifcaps,
    librispeech,
    libritts,
    musicbench,
    musicqa,
    texts,
    wavcaps,
)
from alm.data.example import CAPTION, TRANSCRIPT, DataError, Example, ReadReport, keep_with_audio
from alm.data.leaks import LeakGuard

QUESTIONS = "questions"


class DataSet(NamedTuple):
    """A reader, what the texts are (`QUESTIONS`, `TRANSCRIPT`, `CAPTION`), the licence, and where the licence is stated."""

    examples: Callable[..., Iterator[Example]]
    kind: str
    licence: str
    stated: str


HUB = "huggingface.co/datasets"
CATALOGUE: dict[str, DataSet] = {
    "musicqa": DataSet(
        musicqa.examples, QUESTIONS, "MIT (card); audio under its sources' own", f"{HUB}/mu-llama/MusicQA"
    ),
    "clothoaqa": DataSet(
        clothoaqa.examples, QUESTIONS, "not confirmed; audio under Freesound's licences", "zenodo.org/records/6473207"
    ),
    "compa_r": DataSet(
        compa_r.examples, QUESTIONS, "not stated (repository Apache-2.0); audio of YouTube", "github.com/Sreyan88/GAMA"
    ),
    "librispeech": DataSet(librispeech.examples, TRANSCRIPT, "CC BY 4.0", f"{HUB}/openslr/librispeech_asr"),
    "libritts": DataSet(libritts.examples, TRANSCRIPT, "CC BY 4.0", f"{HUB}/mythicinfinity/libritts"),
    "libritts_r": DataSet(libritts.examples, TRANSCRIPT, "CC BY 4.0", f"{HUB}/mythicinfinity/libritts_r"),
    "audiocaps": DataSet(
        audiocaps.examples, CAPTION, "MIT, for academic purposes only; audio of YouTube", "github.com/cdjkim/audiocaps"
    ),
    "ifcaps": DataSet(ifcaps.examples, CAPTION, "CC BY-NC-ND 4.0, gated", f"{HUB}/HKUSTAudio/AudioX-IFcaps"),
    "audioset": DataSet(audioset.examples, CAPTION, "CC BY 4.0; audio of YouTube", f"{HUB}/agkphysics/AudioSet"),
    "wavcaps": DataSet(
        wavcaps.examples, CAPTION, "academic use only; audio under its sources' own", "github.com/XinhaoMei/WavCaps"
    ),
    "musicbench": DataSet(
        musicbench.examples, CAPTION, "CC BY-SA 3.0; audio of YouTube", f"{HUB}/amaai-lab/MusicBench"
    ),
    "clotho": DataSet(
        clotho.examples, CAPTION, "non-commercial; audio under Freesound's licences", "zenodo.org/records/4783391"
    ),
    "text": DataSet(texts.examples, QUESTIONS, "see its card or owner", "not known here"),
    "folder": DataSet(folder.examples, f"{CAPTION} or {TRANSCRIPT}", "see its card or owner", "not known here"),
}


@dataclass(frozen=True)
class Source:
    """One data set as a run uses it: its name in `CATALOGUE`, a path (file, folder, or id of the Hub) and its reader's options."""

    name: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: str | Mapping[str, Any]) -> "Source":
        """From `NAME=PATH,OPTION=VALUE,…`, or from a mapping `{data: NAME, path: PATH, OPTION: VALUE, …}` of a YAML file.

        Commas in a path need no care unless an option's name and "=" follow. Raises `DataError` naming what is accepted.
        """
        if isinstance(value, str):
            name, found, rest = value.partition("=")
            path, *options = re.split(r",(?=[A-Za-z_]+=)", rest)
            given: dict[str, Any] = dict(option.split("=", 1) for option in options)
        else:
            given = dict(value)
            name, path = str(given.pop("data", "")), str(given.pop("path", ""))
            found = name
        accepted = options_of(name)
        if not found or not path:
            raise DataError(f"{value!r}: NAME=PATH,OPTION=VALUE,… expected, or in YAML a mapping with data and path")
        return cls(name, path, {key: _value(name, key, item, accepted) for key, item in given.items()})

    def __str__(self) -> str:
        return ",".join([f"{self.name}={self.path}", *(f"{key}={value}" for key, value in self.options.items())])


def options_of(name: str) -> dict[str, Any]:
    """The options of a data set's reader, with their types. Raises `DataError` for an unknown name."""
    if name not in CATALOGUE:
        raise DataError(f"no data set is called {name!r}; there are {', '.join(CATALOGUE)} (folder reads any other)")
    reader = CATALOGUE[name].examples
    types = get_type_hints(reader)
    parameters = inspect.signature(reader).parameters.values()
    return {
        parameter.name: types[parameter.name] for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
    }


def read_source(
    source: Source, report: ReadReport, max_missing: float | None = 0.1, guard: LeakGuard | None = None
) -> Iterator[Example]:
    """The examples of a source whose audio is there and whose clip is in none of the guard's test sets; the rest is counted in `report`.

    Raises `DataError` for malformed data, and when more than the share `max_missing` lacks its audio (None: no limit); clips that
    the guard keeps out do not count as missing.
    """
    found = CATALOGUE[source.name].examples(source.path, report, **source.options)
    return keep_with_audio(guard.keep(found, report) if guard else found, report, max_missing)


def _value(name: str, key: str, value: Any, accepted: Mapping[str, Any]) -> Any:
    if key not in accepted:
        raise DataError(f"{name} has no option {key!r}; it takes {', '.join(accepted)}")
    kind = accepted[key]
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices and value not in choices:
        raise DataError(f"{name}: {key} must be one of {', '.join(choices)}, got {value!r}")
    if float not in get_args(kind):
        return str(value)
    try:
        return float(value)
    except ValueError:
        raise DataError(f"{name}: {key} must be a number, got {value!r}") from None
