"""The tiny model's tokenizer: byte-level BPE of 512 tokens in Hugging Face files."""

import json
import random
import re
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tiny_chat
import tiny_tasks

VOCABULARY = 512
TEXT_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CONTROLS = tuple(f"<{end}{name}>" for name in ("Think", "Parallel", "Goal", "Outline", "Path", "Conclusion") for end in ("", "/"))

# Qwen2's pattern, but newlines never join the punctuation before them: "\n" is one token wherever it stands. \p{N} keeps digits apart.
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"


def corpus(seed=7):
    """Questions, names and chat. Without the words that problems invent: their letters must stay one token each."""
    rng = random.Random(seed)
    families = list(tiny_tasks.FAMILIES)
    control = re.compile("|".join(map(re.escape, TEXT_SPECIALS + CONTROLS)))
    for _ in range(6000):
        messages = tiny_chat.conversation(rng, families, [1] * len(families))
        text = control.sub("\n", "\n".join(f"{m['role']}\n{m['content']}" for m in messages))
        yield re.sub(r"\s*\n\s*", "\n", re.sub(r"[A-Z]{2,}|[A-Z](?=\d)", "", text))
    for wordy in (tiny_chat.ABOUT, *tiny_chat.SYSTEMS, *tiny_chat.GREETINGS, *tiny_chat.ABOUT_YOU, *tiny_chat.THINGS):
        yield from [wordy] * 20


def build(directory):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)]
    )
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    specials = TEXT_SPECIALS + CONTROLS
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(specials), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in specials])
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise RuntimeError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens, expected {VOCABULARY}")
    if [token for token in tokenizer.get_vocab() if "\u010a" in token] != ["\u010a"]:
        raise RuntimeError("a token merges the newline with something")

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    added = {
        str(tokenizer.token_to_id(s)): {"content": s, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        for s in specials
    }
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "bos_token": None,
        "chat_template": tiny_chat.CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    return tokenizer
