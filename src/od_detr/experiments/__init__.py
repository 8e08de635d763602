"""The demo, and the rows of the paper's tables and figures."""
