"""What people look at: curves, tables, drawn detections, pages."""

import warnings

# Nothing here needs OpenCV, which supervision advises to install when it is imported.
warnings.filterwarnings("ignore", message=".*OpenCV.*", module="supervision")
