"""Everything a user can choose, as plain data: the command line, `config.yaml` and Python share it.

Only the standard library is imported here, so that `od-detr --help` answers at once. The switches of the
method carry the names of docs/paper.md, which tells for each reading of the paper what was chosen and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from od_detr.architectures import ARCHITECTURES, Architecture, ModelName

RecipeName = Literal["baseline", "qfl", "md", "md+pd", "md+ag", "od"]


@dataclass(frozen=True)
class QflOptions:
    """The classification loss of every recipe but baseline, Eq. 2.

    Args:
        loss: quality focal, or focal with hard labels (Conditional MD, Table 3).
        class_weight: weight of the classification losses; default the architecture's own (2, 1, 1).
        alpha: weight of positives against negatives; none in the paper.
        gamma: exponent of the modulation.
    """

    loss: Literal["qfl", "focal"] = "qfl"
    class_weight: float | None = None
    alpha: float | None = None
    gamma: float = 2.0


@dataclass(frozen=True)
class MatchingSwitches:
    """Matching distillation, section 3.2.

    Args:
        layer: teacher layer that student layer l refers to; final_only distils the last layer alone.
        same_class: label of a query matched to two targets of one class.
        teacher_only: whether queries that only the teacher matches become positives.
        cls_norm: classification is divided by the target count or by the number of positives.
        reg: whether box regression is distilled.
        wd: weight of the costlier of a target's two queries in regression, Eq. 4.
        cost: whose cost decides which is costlier; teacher_pair always weighs the teacher's down.
        wd_cls: whether that query's classification is weighed down too.
        wd_cls_mode: weigh down its loss or its target.
        cond_iou: keep teacher pairs only above this IoU (Conditional MD, Table 3).
        cond_own: apply that threshold to the student's own pairs as well.
    """

    layer: Literal["same", "last", "final_only"] = "same"
    same_class: Literal["online", "max", "teacher"] = "online"
    teacher_only: bool = True
    cls_norm: Literal["nb", "num_pos"] = "nb"
    reg: bool = True
    wd: float = 0.51
    cost: Literal["student", "teacher", "own", "teacher_pair"] = "student"
    wd_cls: bool = False
    wd_cls_mode: Literal["loss", "target"] = "loss"
    cond_iou: float | None = None
    cond_own: bool = False


@dataclass(frozen=True)
class PredictionSwitches:
    """Prediction distillation, section 3.3.

    Args:
        position: whose position the group's queries carry.
        anchors: whose anchors the group's queries carry.
        tood: the TOOD-weight of Eq. 5; without it the teacher's scores are the labels as they are.
        tood_norm: rescale that weight to the IoU.
        listen2stu: distil a box only where the teacher's is the better one, Eq. 6.
        iou_from: the student's box in that comparison, of this group or of the main one.
        cls_scope: classify all queries or only those the teacher matched.
        other_entries: labels of the classes Eq. 5 leaves alone.
        norm: what classification is divided by.
        reg_unmatched: box loss of queries without a target, weighed by their best score or by one.
    """

    position: Literal["teacher", "student"] = "teacher"
    anchors: Literal["teacher", "student"] = "teacher"
    tood: bool = True
    tood_norm: bool = False
    listen2stu: bool = True
    iou_from: Literal["pd", "main"] = "pd"
    cls_scope: Literal["all", "matched"] = "all"
    other_entries: Literal["teacher", "zero"] = "teacher"
    norm: Literal["nb", "sum_w", "sum_y", "queries"] = "nb"
    reg_unmatched: Literal["off", "max_score", "one"] = "off"


@dataclass(frozen=True)
class PriorSwitches:
    """DETRDistill's query-prior assignment in place of prediction distillation (Table 5, last row).

    Args:
        on: replace prediction distillation by it.
        match: take the teacher's matching of the same layer, or match anew.
    """

    on: bool = False
    match: Literal["teacher", "rematch"] = "teacher"


@dataclass(frozen=True)
class AuxiliarySwitches:
    """Auxiliary groups, section 3.4.

    Args:
        anchors: what their queries start from; auto is the centre for architectures that start from points, else the box.
        position: position of architectures whose queries bring their own.
        stages: teacher layers to take queries from, counted from 1; default all.
        duplicates: a query cheapest for several targets is kept once, as often, or never shared.
        include_matched: add the query the teacher matched where it is not among the two cheapest.
        max_queries: keep only the cheapest so many queries of a group.
        match: matching of the groups: both, the teacher's, or the student's.
        reduce: average or sum the groups' losses.
        weight: factor on all of these losses.
    """

    anchors: Literal["auto", "center", "box"] = "auto"
    position: Literal["teacher_index", "sine"] = "teacher_index"
    stages: tuple[int, ...] | None = None
    duplicates: Literal["unique", "keep", "disjoint"] = "unique"
    include_matched: bool = False
    max_queries: int | None = None
    match: Literal["md", "original", "rematch"] = "md"
    reduce: Literal["mean", "sum"] = "mean"
    weight: float = 1.0


@dataclass(frozen=True)
class MatchOptions:
    """The Hungarian matching.

    Args:
        cost: focal as in every DETR here, or Stable-DINO's position-modulated cost.
    """

    cost: Literal["focal", "stable"] = "focal"


@dataclass(frozen=True)
class EmaOptions:
    """The teacher's average.

    Args:
        decay: weight of the past; default 0.9996, or for short schedules the same share of training.
        warmup: none, exp(tau) or mean(w).
        warmup_steps: tau or w.
        stop: Stop Update at the learning-rate drop; auto is on where predictions are distilled.
        track: average the student even where nothing is distilled, to compare with it.
        precision: of the teacher's forward pass: the student's, or bf16; the average itself is always 32.
    """

    decay: float | None = None
    warmup: Literal["none", "exp", "mean"] = "none"
    warmup_steps: float = 0.0
    stop: Literal["auto", "on", "off"] = "auto"
    track: bool = True
    precision: Literal["student", "bf16"] = "student"


@dataclass(frozen=True)
class DistillOptions:
    """All of online distillation.

    Args:
        start: optimiser step at which it begins.
        detach_memory: keep the gradient of the added queries out of encoder and backbone.
    """

    start: int = 0
    detach_memory: bool = False


@dataclass(frozen=True)
class DinoOptions:
    """Two-stage architectures.

    Args:
        align: whose memory tokens queries come from: the student's or the teacher's for both, or each its own.
    """

    align: Literal["student_topk", "teacher_topk", "rank"] = "student_topk"


@dataclass(frozen=True)
class EncoderOptions:
    """The encoder's own predictions of two-stage architectures.

    Args:
        loss: their classification loss under every recipe but baseline.
        md: distil their matching too.
    """

    loss: Literal["qfl", "focal"] = "qfl"
    md: bool = False


@dataclass(frozen=True)
class DenoisingOptions:
    """The denoising group of architectures that have one.

    Args:
        loss: its classification loss under every recipe but baseline.
    """

    loss: Literal["qfl", "focal"] = "qfl"


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW as the originals use it.

    Args:
        lr: learning rate; default the architecture's own (2e-4, 1e-4, 1e-4).
        backbone_lr: the backbone's, as a share of lr; default 0.1 with pretrained weights, 1 from scratch.
        wd: weight decay.
        clip: largest gradient norm.
        drop: epoch after which the rate falls tenfold; default 11 of 12, 20 of 24, 40 of 50, else five sixths.
        warmup: steps of linear warm-up.
    """

    lr: float | None = None
    backbone_lr: float | None = None
    wd: float = 1e-4
    clip: float = 0.1
    drop: int | None = None
    warmup: int = 0


@dataclass(frozen=True)
class EvalOptions:
    """Validation during training.

    Args:
        every: epochs between validations; the last epoch is always validated.
        topk: detections an image; default the architecture's own (100, 100, 300).
    """

    every: int = 1
    topk: int | None = None


@dataclass(frozen=True)
class TrainOptions:
    """Train a detector.

    Args:
        data: folder with images and COCO annotations.
        model: the architecture.
        output: the run's directory.
        recipe: how it is supervised; od is the whole method.
        resume: continue the run in --output where it stopped.
        init: start from the detector of this run or directory; other classes get new heads.
        dry_run: check everything and print what the run would cost, without training.
        epochs: passes over the training images.
        batch_size: images a step and device.
        accumulate: steps whose gradients are summed before the weights move.
        image_size: short side at test time; training scales vary around it as in DETR.
        augment: DETR's flips, scales and crops; flips only; or none.
        backbone: any timm model with features_only.
        backbone_weights: imagenet, none, or a safetensors file.
        backbone_options: further arguments of the timm model.
        hidden_dim: width of the transformer.
        encoder_layers: number of them.
        decoder_layers: number of them.
        queries: number of them.
        feedforward: hidden width of the feed-forward layers.
        num_levels: levels of the feature pyramid.
        dropout: of the transformer.
        seed: of everything random.
        device: auto, cpu, cuda or mps.
        devices: how many.
        precision: 32, bf16 or fp16; matching and losses are always 32.
        compile: let torch.compile translate the backbone for a GPU; refused elsewhere, where it gains too little.
        workers: processes that load images; default one less than the cores.
    """

    data: str
    model: ModelName = "deformable-detr-plus"
    output: str = "runs/train"
    recipe: RecipeName = "od"
    resume: bool = False
    init: str | None = None
    dry_run: bool = False
    epochs: int = 24
    batch_size: int = 2
    accumulate: int = 1
    image_size: int = 800
    augment: Literal["detr", "flip", "none"] = "detr"
    backbone: str = "resnet50"
    backbone_weights: str = "imagenet"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    hidden_dim: int | None = None
    encoder_layers: int | None = None
    decoder_layers: int | None = None
    queries: int | None = None
    feedforward: int | None = None
    num_levels: int | None = None
    dropout: float | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    precision: Literal["32", "bf16", "fp16"] = "32"
    compile: bool = False
    workers: int | None = None
    opt: OptimizerOptions = field(default_factory=OptimizerOptions)
    ema: EmaOptions = field(default_factory=EmaOptions)
    match: MatchOptions = field(default_factory=MatchOptions)
    qfl: QflOptions = field(default_factory=QflOptions)
    md: MatchingSwitches = field(default_factory=MatchingSwitches)
    pd: PredictionSwitches = field(default_factory=PredictionSwitches)
    query_prior: PriorSwitches = field(default_factory=PriorSwitches)
    ag: AuxiliarySwitches = field(default_factory=AuxiliarySwitches)
    distill: DistillOptions = field(default_factory=DistillOptions)
    dino: DinoOptions = field(default_factory=DinoOptions)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    denoising: DenoisingOptions = field(default_factory=DenoisingOptions)
    eval: EvalOptions = field(default_factory=EvalOptions)

    @property
    def architecture(self) -> Architecture:
        return ARCHITECTURES[self.model]

    @property
    def drop_epoch(self) -> int:
        """First epoch (counted from 0) with the reduced learning rate."""
        usual = {12: 11, 24: 20, 36: 30, 50: 40}
        return (
            usual.get(self.epochs, max(1, round(self.epochs * 5 / 6)))
            if self.opt.drop is None
            else self.opt.drop
        )

    @property
    def distils(self) -> bool:
        return self.recipe in ("md", "md+pd", "md+ag", "od")

    @property
    def stops_update(self) -> bool:
        """Whether the teacher is frozen at the learning-rate drop."""
        if self.ema.stop == "auto":
            return self.recipe in ("md+pd", "od")
        return self.ema.stop == "on"


# What a resumed run may have otherwise, and what is no property of a run at all.
MAY_CHANGE_ON_RESUME = (
    "data",
    "output",
    "resume",
    "dry_run",
    "epochs",
    "device",
    "precision",
    "compile",
    "workers",
    "eval",
)
SIZES = (
    "hidden_dim",
    "encoder_layers",
    "decoder_layers",
    "queries",
    "feedforward",
    "num_levels",
    "dropout",
)
# What may be None: the architecture, the schedule or the detector to start from decide, and `config.yaml` says how.
RESOLVED_LATER = (
    *SIZES,
    "opt.lr",
    "opt.backbone_lr",
    "opt.drop",
    "ema.decay",
    "qfl.class_weight",
    "eval.topk",
)
