"""Naming a source of data: on a command line, in YAML, and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from alm.data.catalogue import CATALOGUE, Source, options_of
from alm.data.example import DataError


def test_a_source_from_text_and_from_yaml_are_equal() -> None:
    text = Source.parse("clotho=a folder, with a comma=/x,audio=b,captions=first")
    assert text == Source("clotho", "a folder, with a comma=/x", {"audio": "b", "captions": "first"})
    assert text == Source.parse(
        {"data": "clotho", "path": "a folder, with a comma=/x", "audio": "b", "captions": "first"}
    )
    assert Source.parse(str(text)) == text


def test_values_have_their_options_types() -> None:
    assert Source.parse("wavcaps=x,max_seconds=30").options == {"max_seconds": 30.0}
    assert Source.parse({"data": "wavcaps", "path": "x", "max_seconds": 30}).options == {"max_seconds": 30.0}
    assert Source.parse({"data": "librispeech", "path": "x", "split": 100}).options == {"split": "100"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("audiocap=x", "no data set is called 'audiocap'; there are musicqa, .*folder"),
        ("audiocaps", "NAME=PATH,OPTION=VALUE"),
        ("audiocaps=", "NAME=PATH,OPTION=VALUE"),
        ("audiocaps=x,aduio=y", "audiocaps has no option 'aduio'; it takes audio, split, captions"),
        ("clotho=x,captions=second", "captions must be one of all, first, got 'second'"),
        ("clotho=x,split=test", "split must be one of development, validation, evaluation, got 'test'"),
        ("wavcaps=x,max_seconds=long", "max_seconds must be a number, got 'long'"),
        ({"data": "clotho"}, "data and path"),
        ({"path": "x"}, "no data set is called ''"),
    ],
)
def test_mistakes_name_what_is_accepted(value: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Source.parse(value)  # type: ignore[arg-type]


def test_every_data_set_has_a_licence_a_reader_and_options() -> None:
    for name, data_set in CATALOGUE.items():
        assert data_set.licence and data_set.stated and data_set.kind
        assert "report" not in options_of(name) and "path" not in options_of(name)


def test_the_catalogue_loads_nothing_heavy() -> None:
    program = "import sys, alm.data.catalogue; print(sorted({'torch', 'datasets', 'pyarrow', 'numpy', 'soundfile'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.strip() == "[]"
