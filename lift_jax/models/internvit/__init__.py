"""InternViT-6B: what the 40b critic sees with."""
