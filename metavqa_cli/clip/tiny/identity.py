"""What the built-in CLIP model is, to notice when its files are damaged. Without torch."""

from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / "assets" / "tiny_clip"
FILES = ("tiny_clip.safetensors", "tiny_clip.json")
SHA256 = "d6056a422f50a4197a74c435491916add7b7040d76890a5bbf60460b2370c21f"
"""Of both files, one after the other; it changes with every training of the model."""
