"""The two towers of the built-in model, as open_clip builds them from ``tiny_clip.json``.

Importing open_clip brings torchvision, timm and torch's compiler, and takes longer than importing torch; these are the
parts of it that the built-in model consists of. Names and order of operations are open_clip's (CLIP; Radford et al.
2021), so that the same weights fit both and give the same bits.
"""

from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

EXPANSION = 4  # channels of a residual block's output to those within


class TinyClip(nn.Module):
    """Images and tokens to embeddings; ``config`` is ``tiny_clip.json``, or another with the same names."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        embed, text = config["embed_dim"], config["text_cfg"]
        width = text["width"]
        self.visual = ImageTower(embed, **config["vision_cfg"])
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(text["vocab_size"], width), freeze=False)
        self.positional_embedding = nn.Parameter(torch.empty(text["context_length"], width))
        self.transformer = TextTower(width, text["heads"], text["layers"])
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, embed))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def encode_image(
        self, image: Float[Tensor, "image 3 height width"], normalize: bool = False
    ) -> Float[Tensor, "image embed"]:
        """Embeddings, of unit norm with ``normalize``."""
        x: Tensor = self.visual(image)
        return F.normalize(x, dim=-1) if normalize else x

    def encode_text(self, text: Int[Tensor, "text context"], normalize: bool = False) -> Float[Tensor, "text embed"]:
        """Embeddings of tokens, read off the end mark (the largest id), of unit norm with ``normalize``."""
        x: Tensor = self.token_embedding(text) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        x = x[torch.arange(len(x), device=x.device), text.argmax(dim=-1)] @ self.text_projection
        return F.normalize(x, dim=-1) if normalize else x


class TextTower(nn.Module):
    """A transformer in which no token sees those after it."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(TextBlock(width, heads) for _ in range(layers))

    def forward(self, x: Float[Tensor, "text context width"]) -> Float[Tensor, "text context width"]:
        context = x.shape[1]
        later = torch.full((context, context), float("-inf"), dtype=x.dtype, device=x.device).triu_(1)
        for block in self.resblocks:
            x = block(x, later)
        return x


class TextBlock(nn.Module):
    """Attention and a two-layer network, each on normalised features and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        layers = {"c_fc": nn.Linear(width, 4 * width), "gelu": nn.GELU(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        seen = self.ln_1(x)
        x = x + self.attn(seen, seen, seen, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class ImageTower(nn.Module):
    """ModifiedResNet: a stem of three convolutions, four groups of residual blocks, and attention for a mean."""

    def __init__(self, embed: int, image_size: int, layers: list[int], width: int, head_width: int) -> None:
        super().__init__()
        half, deep = width // 2, 8 * width * EXPANSION
        self.conv1, self.bn1 = _conv(3, half, 3, stride=2), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = _conv(half, half, 3), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = _conv(half, width, 3), nn.BatchNorm2d(width)
        self.layer1 = _group(width, width, layers[0], 1)
        self.layer2 = _group(width * EXPANSION, width * 2, layers[1], 2)
        self.layer3 = _group(width * 2 * EXPANSION, width * 4, layers[2], 2)
        self.layer4 = _group(width * 4 * EXPANSION, width * 8, layers[3], 2)
        self.attnpool = AttentionPool(image_size // 32, deep, deep // head_width, embed)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(norm(conv(x)), inplace=True)
        x = F.avg_pool2d(x, 2)
        return self.attnpool(self.layer4(self.layer3(self.layer2(self.layer1(x)))))


class Residual(nn.Module):
    """A bottleneck whose strides are pooled: 1×1, 3×3 and 1×1 convolutions beside a shortcut."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = inner * EXPANSION
        self.stride = stride
        self.conv1, self.bn1 = _conv(inputs, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = _conv(inner, inner, 3), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = _conv(inner, outputs, 1), nn.BatchNorm2d(outputs)
        shortcut = stride > 1 or inputs != outputs
        self.downsample = nn.Sequential(_conv(inputs, outputs, 1), nn.BatchNorm2d(outputs)) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)), inplace=True)
        inner = F.relu(self.bn2(self.conv2(inner)), inplace=True)
        outer = self.bn3(self.conv3(self._pooled(inner)))
        outer += x if self.downsample is None else self.downsample(self._pooled(x))
        return F.relu(outer, inplace=True)

    def _pooled(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """The mean of all places attends to them and to itself."""

    def __init__(self, side: int, width: int, heads: int, embed: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(side**2 + 1, width))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, embed)

    def forward(self, x: Float[Tensor, "image channel height width"]) -> Float[Tensor, "image embed"]:
        x = x.flatten(2).permute(2, 0, 1)  # [place, image, width]
        x = torch.cat([x.mean(dim=0, keepdim=True), x], dim=0) + self.positional_embedding[:, None]
        bias = torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias])
        pooled, _ = F.multi_head_attention_forward(
            x, x, x, x.shape[-1], self.heads, None, bias, None, None, False, 0.0, self.c_proj.weight, self.c_proj.bias,
            training=False, need_weights=False, use_separate_proj_weight=True, q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight, v_proj_weight=self.v_proj.weight,
        )  # fmt: skip
        return pooled[0]


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def _group(inputs: int, inner: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Residual(inner * EXPANSION, inner, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Residual(inputs, inner, stride), *rest)


def load_towers(config: dict[str, Any], state: dict[str, Tensor]) -> TinyClip:
    """A model with the weights ``state``, which it keeps. ``RuntimeError`` when they do not fit ``config``.

    Nothing is initialised at random on the way (of the initialisers only normal_, which imports the compiler there,
    needs more than the shapes, hence ``Embedding.from_pretrained``). The parameters require gradients as open_clip's
    do: without, torch chooses other attention kernels, and other last bits.
    """
    with torch.device("meta"):
        model = TinyClip(config)
    model.load_state_dict(state, assign=True)
    return model.eval()
