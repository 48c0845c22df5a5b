"""For `pytest -p`: PyPI's torchvision beside a CPU build of torch, which its compiled operators do not suit.

Its import asks for two of them, and Transformers imports it wherever it is there; none is needed to process audio.
"""

import torch

if torch.version.cuda is None:
    OPERATORS = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
