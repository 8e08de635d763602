"""`od-detr` with one more backbone: MobileNetV1 of width 0.75, small enough to fine-tune on a CPU.

    python benchmarks/real_data.py train --backbone mobilenetv1_075 --backbone-weights FILE --data …

timm has no preset of that width. The arguments are those of `od-detr`.
"""

from __future__ import annotations

import sys
from typing import Any

from timm.models import register_model
from timm.models._registry import generate_default_cfgs
from timm.models.efficientnet import EfficientNet, _gen_mobilenet_v1

from od_detr.cli import main

default_cfgs = generate_default_cfgs(
    {"mobilenetv1_075.local": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}}
)


@register_model
def mobilenetv1_075(pretrained: bool = False, **options: Any) -> EfficientNet:
    """MobileNetV1, width 0.75, with TensorFlow's padding and norms."""
    return _gen_mobilenet_v1(
        "mobilenetv1_100", 0.75, pretrained=False, pad_type="same", bn_eps=1e-3, **options
    )


if __name__ == "__main__":
    sys.exit(main())
