"""The tiny model in PyTorch, with Hugging Face's names: Qwen2 whose positions and attention are the caller's."""

import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.Module):
    def __init__(self, size, epsilon):
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(size)), epsilon

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)).to(x.dtype) * self.weight.to(x.dtype)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, heads, kv_heads = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
        self.head = hidden // heads
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, kv_heads * self.head)
        self.v_proj = nn.Linear(hidden, kv_heads * self.head)
        self.o_proj = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x, rotation, attend):
        # (batch, length, hidden) -> (batch, heads, length, head)
        q, k, v = (p(x).unflatten(-1, (-1, self.head)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.o_proj(attend(rotate(q, rotation), rotate(k, rotation), v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, wide = config["hidden_size"], config["intermediate_size"]
        self.gate_proj = nn.Linear(hidden, wide, bias=False)
        self.up_proj = nn.Linear(hidden, wide, bias=False)
        self.down_proj = nn.Linear(wide, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = Norm(config["hidden_size"], config["rms_norm_eps"])
        self.self_attn = Attention(config)
        self.post_attention_layernorm = Norm(config["hidden_size"], config["rms_norm_eps"])
        self.mlp = Mlp(config)

    def forward(self, x, rotation, attend):
        x = x + self.self_attn(self.input_layernorm(x), rotation, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = Norm(config["hidden_size"], config["rms_norm_eps"])


class Tiny(nn.Module):
    """`attend` (one for all layers, or a list) takes q, k, v of shape (batch, heads, length, head) and returns the mixed values."""

    def __init__(self, config):
        super().__init__()
        self.model = Body(config)
        head = config["hidden_size"] // config["num_attention_heads"]
        frequencies = config["rope_theta"] ** -(torch.arange(0, head, 2) / head)
        self.register_buffer("frequencies", frequencies, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # What writes to the residual stream starts smaller, so that its scale doesn't grow with depth.
                last = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * config["num_hidden_layers"]) ** (0.5 if last else 0))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids, positions, attend):
        angles = positions[..., None].float() * self.frequencies.float()
        rotation = angles.cos()[:, None], angles.sin()[:, None]  # (batch, 1, length, head / 2)
        x = self.model.embed_tokens(ids)
        for i, layer in enumerate(self.model.layers):
            x = layer(x, rotation, attend[i] if isinstance(attend, list) else attend)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)


def rotate(x, rotation):
    """RoPE on the two halves of each head, as Qwen2 pairs them."""
    cos, sin = rotation
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)
