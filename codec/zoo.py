"""The one table from names to codecs."""

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from codec.base import Codec
from codec.entangle import CheckpointError, EntangleCodec


class UnknownCodecError(ValueError):
    """A name that is no codec, or an option that the named one does not take: says what is accepted."""


class Baseline(NamedTuple):
    """Where a baseline's adapter is, what it loads by default, and where the paper's tables put it."""

    adapter: str
    """Module below `codec.baselines` and class; read when it is asked for."""
    hub_id: str | None
    """None: its own loader finds it, or asks for a checkout."""
    paper: tuple[int, ...]
    """Numbers of codebooks in Tables 1–3 of the paper; without `num_codebooks` all of the model's are used."""


BASELINES = {
    "dac": Baseline("dac.DacCodec", "descript/dac_16khz", (1,)),
    "encodec": Baseline("encodec.EncodecCodec", "facebook/encodec_24khz", (1,)),
    "mimi": Baseline("mimi.MimiCodec", "kyutai/mimi", (4,)),
    "xcodec": Baseline("xcodec.XcodecCodec", "hf-audio/xcodec-hubert-general-balanced", (1,)),
    "xcodec2": Baseline("xcodec2.Xcodec2Codec", "HKUSTAudio/xcodec2-hf", (1,)),
    "speechtokenizer": Baseline("speechtokenizer.SpeechTokenizerCodec", None, (1, 8)),
    "wavtokenizer": Baseline("wavtokenizer.WavTokenizerCodec", "swiss-ai/wavtokenizer-large-unify-40token", (1,)),
    "xy-tokenizer": Baseline("xy_tokenizer.XYTokenizerCheckout", None, (8,)),
}
"""By name; the names of those in Transformers are the `model_type` of their configurations, too."""
WAVTOKENIZER_CHECKOUT = "wavtokenizer.WavTokenizerCheckout"
DESCRIPTIONS = (".yaml", ".yml", ".json")


def load_codec(
    name_or_path: str | Path, device: str = "cpu", num_codebooks: int | None = None, **options: Any
) -> Codec:
    """Load a codec: a name of `BASELINES`, or a folder or Hub id that holds an EntangleCodec or a baseline of Transformers.

    `num_codebooks` keeps the first `K` codebooks of a residual quantizer (default: all). `options` are the adapter's: `revision`
    for what comes from the Hub; `config` and `checkpoint` (local files) for SpeechTokenizer; `checkout` (a folder with the authors'
    repository), `config` and `checkpoint` for WavTokenizer and XY-Tokenizer. All of it can stand in a YAML or JSON file, given in the
    name's place, so that whatever takes a codec's name takes these too: `codec: xy-tokenizer`, `checkout: …`, `num_codebooks: 8`;
    its files and folders are sought beside it.

    Raises `UnknownCodecError` on a name or option that means nothing, `CheckpointError` where a codec cannot be loaded and
    `codec.baselines.base.BaselineError` where it cannot be used as asked.
    """
    if Path(name_or_path).suffix in DESCRIPTIONS and Path(name_or_path).is_file():
        name_or_path, described = _read_description(Path(name_or_path))
        usual = described.pop("num_codebooks", None)
        options, num_codebooks = described | options, usual if num_codebooks is None else num_codebooks
    known = BASELINES.get(str(name_or_path)) if not Path(name_or_path).is_dir() else None
    if known is None:
        return _from_files(name_or_path, device, num_codebooks, options)
    if known.hub_id is None:
        return _call(_adapter(known.adapter).load, name_or_path, device, num_codebooks, options)
    if name_or_path == "wavtokenizer" and options.keys() & {"checkout", "config", "checkpoint"}:
        return _call(_adapter(WAVTOKENIZER_CHECKOUT).load, name_or_path, device, num_codebooks, options)
    load = _adapter(known.adapter).from_pretrained
    return _call(load, name_or_path, device, num_codebooks, {"path": known.hub_id, **options})


def _read_description(file: Path) -> tuple[str, dict[str, Any]]:
    """Name and options that a description holds."""
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UnknownCodecError(f"{file} cannot be read as a description of a codec: {error}") from error
    if not isinstance(given, dict) or not isinstance(given.get("codec"), str):
        raise UnknownCodecError(
            f"{file} describes no codec: it needs a line like codec: xy-tokenizer, then its options"
        )
    for key in {"checkout", "config", "checkpoint"} & given.keys():
        given[key] = file.parent / given[key]
    return given.pop("codec"), given


def _from_files(path: str | Path, device: str, num_codebooks: int | None, options: dict[str, Any]) -> Codec:
    """A folder or Hub id, told apart by its configuration's `model_type`."""
    folder = Path(path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds no codec (no config.json). Give a folder written by recipes/train_codec.py or the Hub id of one"
        )
    if not folder.is_dir() and "/" not in str(path):
        raise UnknownCodecError(
            f"no codec is called {path}, and no folder. Accepted: {', '.join(BASELINES)}; a folder written by recipes/train_codec.py; "
            "the Hub id of an EntangleCodec or of a baseline of Transformers"
        )
    kind = _model_type(path, options.get("revision"))
    if kind in BASELINES and BASELINES[kind].hub_id is not None:
        load = _adapter(BASELINES[kind].adapter).from_pretrained
        return _call(load, path, device, num_codebooks, {"path": path, **options})
    if folder.is_dir() and not (folder / "preprocessor_config.json").is_file():
        raise CheckpointError(
            f"{folder} holds no codec (no preprocessor_config.json). Give a folder written by recipes/train_codec.py or the Hub id of one"
        )
    if num_codebooks not in (None, 1):
        raise UnknownCodecError(f"an EntangleCodec has one codebook, got num_codebooks={num_codebooks}")
    return _call(EntangleCodec.from_pretrained, path, device, None, {"path": path, **options})


def _model_type(path: str | Path, revision: str | None) -> str | None:
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
    except OSError as error:
        raise CheckpointError(
            f"{path} is neither a folder with a codec nor a Hub id that can be loaded ({error}). Give a folder written by "
            f"recipes/train_codec.py or one of {', '.join(BASELINES)}"
        ) from error
    kind: str | None = config.get("model_type")
    return kind


def _adapter(name: str) -> Any:
    module, _, cls = name.partition(".")
    return getattr(import_module(f"codec.baselines.{module}"), cls)


def _call(
    load: Callable[..., Codec], name: str | Path, device: str, num_codebooks: int | None, options: dict[str, Any]
) -> Codec:
    """`load` with the options that it takes; all others are a mistake that is better named than ignored."""
    takes = inspect.signature(load).parameters
    given = options | {"device": device} | ({} if num_codebooks is None else {"num_codebooks": num_codebooks})
    if unknown := sorted(given.keys() - takes.keys()):
        accepted = sorted(takes.keys() - {"device", "num_codebooks", "path"})
        raise UnknownCodecError(f"{name} does not take {', '.join(unknown)}; options: {', '.join(accepted) or 'none'}")
    return load(**given)
