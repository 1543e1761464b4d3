"""FLIP's two towers, tokenizer, presets and starting weights."""
