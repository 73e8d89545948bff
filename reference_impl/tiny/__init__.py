"""Tiny LTX-2 and LTX-2.3 checkpoints with random weights: layer types and ratios of the released ones, small widths.

One file a component, each with ``build(model)``; ``build.py`` puts them together and caches the result.
"""
