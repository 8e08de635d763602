"""`python -m od_detr` is `od-detr`."""

import sys

from od_detr.cli import main

sys.exit(main())
