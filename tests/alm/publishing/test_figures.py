"""The card's tables: an accuracy without its controls says so."""

from alm.publishing.card import About, model_card
from alm.publishing.figures import model_index, tables
from alm.scoring.results import Result
from alm.scoring.statistics import Estimate, wilson


def result(**controls: Estimate) -> Result:
    manifest = {"data": "folder/MMAR-meta.jsonl", "data_sha256": "ab" * 32, "limit": 40, "waveform": None}
    return Result(
        benchmark="MMAR",
        system="tiny",
        scores={"official": wilson(30, 40)},
        controls=controls,
        counts={"items": 40, "missing": 0, "unparsed": 3},
        unavailable={"loglikelihood": "switched off"},
        manifest=manifest,
    )


def test_controls_that_were_not_run_are_named() -> None:
    text = tables([result(chance=Estimate(0.25, 0.25, 0.25, 40))])
    assert "| official (the benchmark's own rule) | **75.0** | 59.8 to 85.8 | not run | 25.0 |" in text
    assert "MMAR: the first 40 items of MMAR-meta.jsonl" in text and "folder" not in text
    assert "3 unparsed" in text and "Not computed: loglikelihood" in text
    assert tables([]) == "Nothing was evaluated."


def test_the_model_index_names_the_file_that_was_scored() -> None:
    (entry,) = model_index([result()])
    assert (entry.metric_value, entry.metric_type, entry.dataset_revision) == (0.75, "accuracy", "ab" * 32)
    assert entry.dataset_name == "MMAR (the first 40 items of MMAR-meta.jsonl)"


def test_limits_say_what_nobody_measured(make_vocabulary: object) -> None:
    def limits(results: list[Result]) -> str:
        card = model_card(About(), make_vocabulary(), None, results, [], adapter=False, codec_source="Here")  # type: ignore[operator]
        return card.content.partition("## Limits")[2].partition("##")[0]

    assert "Not evaluated: understanding of audio, reconstruction by the codec, speech" in limits([])
    assert "Not evaluated: reconstruction by the codec" in limits([result()]) and "does not show listening" in limits(
        [result()]
    )
    assert "does not show listening" not in limits([result(no_audio_official=wilson(10, 40))])
