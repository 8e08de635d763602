"""Everything that needs a GPU to be known, in one call: laws, times and evidence.

``python -m benchmarks.gpu --output DIR`` takes about eight minutes on one GPU and installs nothing.
`runner.py` says how a failure stays where it happens, `laws.py`, `times.py` and `evidence.py` what
is done. ``--quick --device cpu`` does all of it in miniature.
"""
