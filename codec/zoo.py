"""The one table from names to codecs."""

from pathlib import Path

from codec.base import Codec
from codec.entangle import CheckpointError, EntangleCodec


def load_codec(name_or_path: str | Path, device: str = "cpu") -> Codec:
    """Load a codec: a folder or Hub id that holds an EntangleCodec. Raises `CheckpointError` if a given folder does not hold one."""
    folder = Path(name_or_path)
    if folder.is_dir() and not (folder / "preprocessor_config.json").is_file():
        raise CheckpointError(
            f"{folder} holds no codec (no preprocessor_config.json). Give a folder written by recipes/train_codec.py or the Hub id of one"
        )
    return EntangleCodec.from_pretrained(name_or_path, device)
