"""Everything a user can choose, as plain data: the command line, `config.yaml` and Python share it.

`data.py`, `train.py`, `schedule.py` and `method.py` declare the options, `fields.py` says how,
`names.py` finds an option by any of its names, and `reading.py` turns values into options.
Importing this needs only the standard library.
"""

from od_detr.options.data import DataOptions
from od_detr.options.fields import flag_name
from od_detr.options.method import (
    AuxiliarySwitches,
    DenoisingOptions,
    DinoOptions,
    DistillOptions,
    EmaOptions,
    EncoderOptions,
    MatchingSwitches,
    MatchOptions,
    PredictionSwitches,
    PriorSwitches,
    QflOptions,
)
from od_detr.options.reading import check_limits, from_values
from od_detr.options.rules import (
    MAY_CHANGE_ON_RESUME,
    PATHS,
    PER_RUN,
    RESOLVED_LATER,
    SIZES,
)
from od_detr.options.schedule import EvalOptions, OptimizerOptions
from od_detr.options.train import RecipeName, TrainOptions

__all__ = [
    "MAY_CHANGE_ON_RESUME",
    "PATHS",
    "PER_RUN",
    "RESOLVED_LATER",
    "SIZES",
    "AuxiliarySwitches",
    "DataOptions",
    "DenoisingOptions",
    "DinoOptions",
    "DistillOptions",
    "EmaOptions",
    "EncoderOptions",
    "EvalOptions",
    "MatchOptions",
    "MatchingSwitches",
    "OptimizerOptions",
    "PredictionSwitches",
    "PriorSwitches",
    "QflOptions",
    "RecipeName",
    "TrainOptions",
    "check_limits",
    "flag_name",
    "from_values",
]
