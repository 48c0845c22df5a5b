"""Stands in for `xy_tokenizer.nn.quantizer`."""

import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self, size, dimension):
        super().__init__()
        self.register_buffer("inited", torch.tensor([False]))
        self.register_buffer("codebook", torch.randn(size, dimension))
