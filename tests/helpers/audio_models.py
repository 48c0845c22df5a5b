"""Audio-language models of other people, through their real classes: tiny, random, with processors made on the spot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

TEXTS = ["Which sound is heard? Answer with the option's letter: a dog, a cat, a bell, rain, the sea, one, two"]
SECONDS = 2  # of a window of the tiny models; the real ones have 30
OMNI_SECONDS = 20
TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT |= {"num_key_value_heads": 2, "max_position_embeddings": 2048}
AUDIO = {"num_mel_bins": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for item in message['content'] %}{% if item['type'] == 'audio' %}AUDIO{% else %}{{ item['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OMNI_TOKENS = {
    **{"audio_token": "<|AUDIO|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"},
    **{"image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>"},
    **{"vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>"},
}


def tokenizer(special: Sequence[str], texts: Sequence[str], **named: str) -> PreTrainedTokenizerFast:
    tokens = Tokenizer(BPE())
    tokens.pre_tokenizer, tokens.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special]
    trainer = BpeTrainer(
        vocab_size=700, special_tokens=control, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokens.train_from_iterator([*texts] * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=named or list(special),
    )


def extractor(seconds: int = SECONDS) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=16, chunk_length=seconds, return_attention_mask=True)


def make_qwen2_audio(folder: Path, texts: Sequence[str] = TEXTS, scale: float = 1.0) -> tuple[Any, Any]:
    tokens = tokenizer(["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"], texts)
    processor = Qwen2AudioProcessor(extractor(), tokens)
    audio = {**AUDIO, "d_model": 32, "max_source_positions": 50 * SECONDS, "model_type": "qwen2_audio_encoder"}
    config = Qwen2AudioConfig(
        audio_config=audio,
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(tokens)},
        audio_token_index=tokens.convert_tokens_to_ids("<|AUDIO|>"),
    )
    return save(Qwen2AudioForConditionalGeneration, config, processor, folder, scale)


def make_audio_flamingo(folder: Path, texts: Sequence[str] = TEXTS, scale: float = 1.0) -> tuple[Any, Any]:
    """Its windows are of `SECONDS`, and it hears two of them."""
    tokens, template = tokenizer(["<sound>"], texts), CHATML.replace("AUDIO", "<sound>")
    processor = AudioFlamingo3Processor(extractor(), tokens, chat_template=template, max_audio_len=2 * SECONDS)
    audio = {"num_mel_bins": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    audio |= {"hidden_size": 32, "max_source_positions": 50 * SECONDS, "model_type": "audioflamingo3_encoder"}
    config = AudioFlamingo3Config(
        audio_config=audio,
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(tokens)},
        audio_token_id=tokens.convert_tokens_to_ids("<sound>"),
    )
    return save(AudioFlamingo3ForConditionalGeneration, config, processor, folder, scale)


def make_qwen_omni(folder: Path, generation: str, scale: float = 1.0) -> tuple[Any, Any]:
    """Qwen2.5-Omni ("2_5") or Qwen3-Omni ("3"), whose speaking part is a tensor that nobody needs. Needs torchvision."""
    name = {"2_5": "Qwen2_5Omni", "3": "Qwen3OmniMoe"}[generation]
    tokens = tokenizer(list(OMNI_TOKENS.values()), TEXTS, **OMNI_TOKENS)
    template = CHATML.replace("AUDIO", "<|audio_bos|><|AUDIO|><|audio_eos|>")
    processor = getattr(transformers, f"{name}Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(),
        video_processor=transformers.Qwen2VLVideoProcessor(),
        feature_extractor=extractor(OMNI_SECONDS),
        tokenizer=tokens,
        chat_template=template,
    )
    audio = {**AUDIO, "d_model": 32, "output_dim": 32, "n_window": 50, "max_source_positions": 50 * SECONDS}
    seen = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32}
    text = {**TEXT, "vocab_size": len(tokens), "tie_word_embeddings": False}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
    if generation == "3":
        audio |= {"downsample_hidden_size": 16}
        seen |= {"deepstack_visual_indexes": [0]}
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 16}
    ids = {kind: tokens.convert_tokens_to_ids(OMNI_TOKENS[f"{kind}_token"]) for kind in ("audio", "image", "video")}
    ids = {f"{kind}_token_{'index' if generation == '2_5' else 'id'}": value for kind, value in ids.items()}
    marks = {
        "vision_start": "vision_bos",
        "vision_end": "vision_eos",
        "audio_start": "audio_bos",
        "audio_end": "audio_eos",
    }
    ids |= {f"{k}_token_id": tokens.convert_tokens_to_ids(OMNI_TOKENS[f"{v}_token"]) for k, v in marks.items()}
    thinker = {"audio_config": audio, "vision_config": seen, "text_config": text, **ids}
    config = getattr(transformers, f"{name}Config")(thinker_config=thinker, enable_audio_output=False)
    made = save(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, scale)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {**weights, "talker.codec_head.weight": torch.zeros(2, 2)}, folder / "model.safetensors", {"format": "pt"}
    )
    return made


def save(cls: Any, config: Any, processor: Any, folder: Path, scale: float) -> tuple[Any, Any]:
    """`scale` above 1 makes a random model's answers depend on what it reads and hears."""
    torch.manual_seed(0)
    model = cls(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


MAKERS = {"qwen2_audio": make_qwen2_audio, "audio_flamingo_3": make_audio_flamingo}
