"""What only a machine with a GPU can show: `python -m pytest -n 0 -m gpu tests/gpu`.

It prints a table and writes gpu_check.json. Without CUDA everything is skipped; with
CALTECH_CHECKED_DEVICE=cpu what can be tried on the CPU is.
"""
