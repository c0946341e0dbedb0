"""Writes a language model that says nothing sensible: random weights, a token for each byte, less than a megabyte.

python tests/real/tiny_model.py FOLDER        in an environment with torch and transformers
"""

from __future__ import annotations

import sys

MARKS = ["<end>", "<turn>"]
TEMPLATE = (
    "{%- for message in messages -%}"
    "<turn>{{ message.role }}: {{ message.content if message.content is string else message.content[0].text }}\n"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<turn>assistant: {%- endif -%}"
)


def main(folder: str) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens.decoder = decoders.ByteLevel()
    tokens.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token=MARKS[0], pad_token=MARKS[0])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)

    set_seed(7)
    end = tokenizer.convert_tokens_to_ids(MARKS[0])
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2Config(
        vocab_size=len(tokenizer), num_key_value_heads=1, max_position_embeddings=4096, eos_token_id=end, **sizes
    )
    model = Qwen2ForCausalLM(config)
    # it never comes to an end by itself, so that an answer is as long as it is allowed to be, and speaks plain ASCII
    mute = [number for number, letter in enumerate(letters) if not letter.isascii()]
    model.generation_config = GenerationConfig(
        eos_token_id=end, pad_token_id=end, do_sample=True, suppress_tokens=[*mute, end, end + 1]
    )
    model.save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
