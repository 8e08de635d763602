"""Words of other packages that stand for no option of ours, or for a value of one."""

from __future__ import annotations

IMAGE_SIZE = "train and evaluate have --image-size; in predict, images are resized as in training"
OPTIMIZER = "`od-detr train` has AdamW only; its --opt.lr and --opt.wd set it"
SCHEDULE = "`od-detr train` divides the rate by 10 once, after the epoch of --opt.drop"
CLASSES = "the classes are those of the data; `od-detr train` has --classes to keep some, by name"
# What people look for under a name that stands for no option of ours. The hint names the command
# that it is about, for it is given to all of them.
ELSEWHERE = {
    "conf": "`od-detr predict` has --threshold",
    "threshold": "`od-detr predict` has --threshold",
    "image_size": IMAGE_SIZE,
    "imgsz": IMAGE_SIZE,
    "save": "`od-detr predict` always writes drawn copies, to its --output",
    "show": "`od-detr predict` writes drawn copies to its --output; look at them there",
    "iou": "these detectors need no NMS",
    "optimizer": OPTIMIZER,
    "momentum": OPTIMIZER,
    "cos_lr": SCHEDULE,
    "lr_scheduler": SCHEDULE,
    "lrf": SCHEDULE,
    "nc": CLASSES,
    "num_classes": CLASSES,
    "cache": "annotations and image headers are cached by themselves, and images are not",
    "exist_ok": "a run never overwrites another one; give another --output, or --resume",
    "plots": "`od-detr evaluate` has --figure; training draws samples and writes metrics.csv",
    "detect": "detecting is a command of its own, `od-detr predict`",
    "predict": "detecting is a command of its own, `od-detr predict`",
    "max_det": "`od-detr predict` returns all that is above its --threshold",
    "vid_stride": "`od-detr predict` reads every frame of a video",
    "stream": "`od-detr predict` reads videos and folders piece by piece anyway",
    "dynamic": "an exported file takes images of any size, and any number of them",
    "simplify": "`od-detr export` always folds constants",
    "half": "`od-detr predict` has --precision bf16; an exported file computes in float32",
    "fraction": "training always takes all images; --classes and another --data leave some out",
}
# Values that belong to another command.
TENSORRT = "; TensorRT reads ONNX files (trtexec --onnx), see docs/export.md"
VALUES_ELSEWHERE = {
    "onnx": "; `od-detr export` writes ONNX files",
    "openvino": "; `od-detr export --format openvino` writes its files",
    "tensorrt": TENSORRT,
    "engine": TENSORRT,
}
# Words of other packages for values of ours.
MEANT = {
    "mosaic": "strong",
    "gpu": "cuda",
    "0": "cuda",
    "dino": "dino-4scale",
    "deformable-detr": "deformable-detr-plus",
}
