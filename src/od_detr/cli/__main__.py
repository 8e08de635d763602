"""`python -m od_detr.cli` is `od-detr`, as `python -m od_detr` is."""

import sys

from od_detr.cli import main

sys.exit(main())
