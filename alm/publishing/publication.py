"""From a run's folder to everything that is published of it: the doctor first, then files, figures and card."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub import CardData

from alm.adapters import adapter_base, is_adapter, read_config
from alm.checkpoint_files import CheckpointFiles
from alm.contract import require_no_faults
from alm.data.example import DataError
from alm.doctor import checks, codec_check
from alm.processing import CODEC_FOLDER
from alm.publishing import snippets, training
from alm.publishing.card import About, codec_card, model_card
from alm.publishing.figures import Owner, read_own
from alm.publishing.files import (
    CARD,
    MANIFEST,
    Files,
    adapter_files,
    as_json,
    codec_files,
    is_hub_id,
    model_files,
    require_no_paths,
    write,
)
from alm.vocabulary import AudioVocabulary
from codec.base import Codec
from codec.zoo import load_codec


class Publication(NamedTuple):
    """What will be written: `files`, the card's metadata among them as `metadata`, and `notes` for the plan.

    `config` is the file that is read back from the Hub to see that the upload arrived.
    """

    files: Files
    metadata: CardData
    notes: list[str]
    config: str = "config.json"


class CodecFound(NamedTuple):
    """A model's codec: its identity (fingerprint, digest of weights where they could be read), where it is, what the plan says."""

    identity: dict[str, Any]
    source: str
    note: str
    speaks: bool
    """Whether it makes waveforms of codes."""


def of_model(folder: Path, about: About, results: Sequence[str], codec_id: str | None, must_reach: bool) -> Publication:
    """A checkpoint, or a LoRA adapter, ready to be written.

    `codec_id` is named in place of `codec/`; `must_reach`: its fingerprint has to be compared, not taken on trust.
    Raises `ContractError` for a folder with any fault, `DataError` for what cannot be published.
    """
    require_no_faults((fault for check in checks(folder) for fault in check.faults), str(folder))
    adapter = is_adapter(folder)
    base = adapter_base(folder) if adapter else folder
    vocabulary = AudioVocabulary.from_dict(CheckpointFiles(base).config["audio_vocabulary"])
    if adapter:
        files, about = _of_adapter(folder, about)
    else:
        files = model_files(folder, codec_id)
    codec = _find_codec(base, vocabulary, codec_id, must_reach)
    manifest = training.read_manifest(folder)
    training.require_same(manifest, "vocabulary", vocabulary.hash, folder)
    owned = read_own(results, Owner(codec.identity, folder, vocabulary.hash))
    whole = snippets.model_snippets(about.here, vocabulary, codec.speaks)
    examples = snippets.adapter_snippets(about.here) if adapter else whole
    source = f"The codec of the base, `{about.base_model}`" if adapter else codec.source
    card = model_card(about, vocabulary, manifest, owned, examples, adapter=adapter, codec_source=source)
    config = "adapter_config.json" if adapter else "config.json"
    return Publication(
        _with_card(files, str(card), manifest),
        card.data,
        [codec.note, *_unsaid(about, "license", "base_model", "repo")],
        config,
    )


def of_codec(folder: Path, about: About, results: Sequence[str]) -> Publication:
    """A codec alone. Raises `ValueError` of `load_codec` for a folder that holds none."""
    codec = load_codec(folder)
    manifest = training.read_manifest(folder)
    training.require_same(manifest, "fingerprint", codec.fingerprint, folder)
    owned = read_own(results, Owner(_identity(codec)))
    card = codec_card(about, codec, manifest, owned, snippets.codec_snippets(about.here, speaks(codec)))
    note = f"codec fingerprint {codec.fingerprint}"
    return Publication(
        _with_card(codec_files(folder), str(card), manifest), card.data, [note, *_unsaid(about, "license", "repo")]
    )


def save(publication: Publication, output: Path) -> None:
    """Write the folder whole or not at all, examined by the doctor where it can stand alone. What was at `output` is replaced."""
    partial = output.with_name(output.name + ".partial")
    write(publication.files, partial)
    if "processor_config.json" in publication.files and publication.config == "config.json":
        require_no_faults((fault for check in checks(partial) for fault in check.faults), str(partial))
        if (partial / CODEC_FOLDER).is_dir():
            require_no_faults(codec_check(partial).faults, str(partial))
    elif publication.config == "config.json":
        load_codec(partial)
    if output.exists():
        shutil.rmtree(output)
    partial.rename(output)


def _of_adapter(folder: Path, about: About) -> tuple[Files, About]:
    base = about.base_model or str(read_config(folder).get("base_model_name_or_path"))
    if not is_hub_id(base):
        raise DataError(
            f"{folder} is an adapter for {base}, which is not on the Hub: publish the grown base first, then give --base_model OWNER/NAME"
        )
    return adapter_files(folder, base), About(**{**vars(about), "base_model": base})


def _find_codec(folder: Path, vocabulary: AudioVocabulary, codec_id: str | None, must_reach: bool) -> CodecFound:
    if codec_id is None:
        require_no_faults(codec_check(folder).faults, str(folder))
        reference = CheckpointFiles(folder).processor["codec_reference"]
        inside = reference == CODEC_FOLDER
        codec = load_codec(folder / CODEC_FOLDER if inside else reference)
        source = f"In `{CODEC_FOLDER}/`" if inside else f"`{reference}`, loaded by name"
        heard = speaks(codec)
        source += "" if heard else "; it encodes only, having no vocoder"
        return CodecFound(
            _identity(codec), source, f"codec {reference}, fingerprint {codec.fingerprint}: checked", heard
        )
    if not is_hub_id(codec_id):
        raise DataError(f"--codec_id {codec_id}: a Hub id has the form OWNER/NAME")
    source = f"`{codec_id}` on the Hub, fingerprint `{vocabulary.codec_fingerprint}`"
    try:
        codec = load_codec(codec_id)
    except (OSError, ValueError) as error:
        if must_reach:
            raise DataError(
                f"--codec_id {codec_id} cannot be loaded, so that nobody could use the model ({str(error).splitlines()[0]}). Publish the "
                f"codec first: --codec FOLDER --repo {codec_id}"
            ) from error
        note = f"codec {codec_id}: NOT CHECKED, taken on trust to have fingerprint {vocabulary.codec_fingerprint}"
        return CodecFound({"codec": vocabulary.codec_fingerprint}, source, note, speaks=True)
    vocabulary.require_codec(codec.fingerprint, f"the codec {codec_id}")
    return CodecFound(
        _identity(codec), source, f"codec {codec_id}, fingerprint {codec.fingerprint}: checked", speaks(codec)
    )


def speaks(codec: Codec) -> bool:
    """Whether a codec makes waveforms of codes: one without a vocoder refuses to."""
    try:
        codec.decode([np.zeros((codec.num_codebooks, 16), dtype=np.int64)])
    except ValueError:
        return False
    return True


def _identity(codec: Codec) -> dict[str, Any]:
    from alm.scoring.sound.systems import CodecSystem

    return CodecSystem(codec, "").identity


def _with_card(files: Files, card: str, manifest: dict[str, Any] | None) -> Files:
    whole: Files = {CARD: card, **files}
    if manifest is not None:
        whole[MANIFEST] = as_json(manifest)
    require_no_paths(whole)
    return whole


def _unsaid(about: About, *names: str) -> list[str]:
    return [f"--{name} not given: the card does not say it" for name in names if getattr(about, name) is None]
