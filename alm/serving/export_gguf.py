"""Writes a checkpoint as one GGUF file for llama.cpp:

    python -m alm.serving.export_gguf --model CHECKPOINT --output model.gguf [--dtype f16]

llama.cpp's own converter takes tokens that look like `<|…|>` for control tokens, which servers leave out of their text: all codes of a
reply would be lost. It also refuses a tokenizer that it does not know by a hash, as those of `alm.tokenizer`. Here audio tokens are
ordinary (`USER_DEFINED`), as in the tokenizer, and the contract goes into the file's metadata. `llama-quantize` takes it from here.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alm.arguments import parse_arguments, run_main
from alm.vocabulary import AudioVocabulary, ContractError

DTYPES = ("f32", "f16", "bf16", "q8_0")
CONTRACT_KEY = "alm.audio_vocabulary"


@dataclass
class ExportArguments:
    """What is written where."""

    model: str = field(metadata={"help": "checkpoint (folder or Hub id)"})
    output: str = field(metadata={"help": "GGUF file to write"})
    dtype: str = field(default="f16", metadata={"help": f"of matrices: {', '.join(DTYPES)}; vectors stay float32"})

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"--dtype {self.dtype}: accepted are {', '.join(DTYPES)}")


def export_gguf(checkpoint: str | Path, output: str | Path, dtype: str = "f16") -> AudioVocabulary:
    """Write the GGUF file and return its contract. Raises `ContractError` where the checkpoint breaks its own."""
    import gguf

    from alm.checkpoint import load_checkpoint
    from alm.checkpoint_files import HEAD

    model, processor = load_checkpoint(checkpoint, check_codec=False)
    config = model.config
    writer = gguf.GGUFWriter(output, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.QWEN3])
    _write_shape(writer, config)
    _write_tokenizer(writer, processor.tokenizer, processor.vocabulary)
    writer.add_string(CONTRACT_KEY, json.dumps(processor.vocabulary.to_dict()))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config.num_hidden_layers)
    kind = gguf.GGMLQuantizationType[dtype.upper()]
    for name, tensor in model.state_dict().items():
        if name == HEAD and processor.vocabulary.tied:
            continue  # llama.cpp reads the embedding where there is no head
        values = tensor.float().cpu().numpy()
        quantised = kind if values.ndim > 1 else gguf.GGMLQuantizationType.F32
        data = gguf.quantize(values, quantised)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), data, raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return processor.vocabulary


def read_contract(path: str | Path) -> AudioVocabulary:
    """The contract in a GGUF file. Raises `ContractError` where there is none or it was edited."""
    import gguf

    found = gguf.GGUFReader(path).get_field(CONTRACT_KEY)
    if found is None:
        raise ContractError(f"{path} holds no vocabulary contract; write it with python -m alm.serving.export_gguf")
    return AudioVocabulary.from_dict(json.loads(found.contents()))


def _write_shape(writer: Any, config: Any) -> None:
    rope = config.rope_parameters
    if rope["rope_type"] != "default":
        raise ContractError(
            f"rotary positions of type {rope['rope_type']} are not written yet; use llama.cpp's converter"
        )
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def _write_tokenizer(writer: Any, tokenizer: Any, vocabulary: AudioVocabulary) -> None:
    import gguf

    known = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    kinds = []
    for number in range(vocabulary.rows):
        if number not in known:
            kinds.append(gguf.TokenType.UNUSED)
        elif number not in added:
            kinds.append(gguf.TokenType.NORMAL)
        else:
            kinds.append(gguf.TokenType.CONTROL if added[number].special else gguf.TokenType.USER_DEFINED)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")  # alm.tokenizer keeps Qwen's splitting, whatever the vocabulary
    writer.add_token_list([known.get(number, f"[PAD{number}]") for number in range(vocabulary.rows)])
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(vocabulary.stop_id)
    writer.add_pad_token_id(vocabulary.pad_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)


def main() -> None:
    """The command line."""
    args = parse_arguments(ExportArguments, description=__doc__)
    vocabulary = export_gguf(args.model, args.output, args.dtype)
    print(f"{args.output}: {args.dtype}, vocabulary {vocabulary.hash}")


if __name__ == "__main__":
    run_main(main)
