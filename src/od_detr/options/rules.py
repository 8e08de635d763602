"""What follows for whole runs from the declarations of the options."""

from __future__ import annotations

from od_detr.options.fields import options_of
from od_detr.options.train import TrainOptions

_ALL = options_of(TrainOptions).values()
# Options and groups that a resumed run may change.
MAY_CHANGE_ON_RESUME = tuple(
    dict.fromkeys(each.name.partition(".")[0] for each in _ALL if each.about.may_change_on_resume)
)
# Options whose value may be a path.
PATHS = tuple(each.name for each in _ALL if each.about.is_path)
# Options that `config.yaml` does not hold.
PER_RUN = tuple(each.name for each in _ALL if each.about.per_run)
# Options that may be None until the architecture, the schedule, the launcher or --init decides.
RESOLVED_LATER = tuple(each.name for each in _ALL if each.about.resolved)
# Those of them that the launcher decides, and those that are sizes of the detector.
PROCESSES = ("devices", "nodes")
_OTHERS = (*PROCESSES, "model", "backbone", "image_size", "epochs", "batch_size")
SIZES = tuple(name for name in RESOLVED_LATER if "." not in name and name not in _OTHERS)
