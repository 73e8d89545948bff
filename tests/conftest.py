"""One thread, no hub, importable diffusers: the same for every test."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from hypothesis import settings

from conformance import guard

guard.install()

import torch

torch.set_num_threads(1)
settings.register_profile("conformance", deadline=None)  # a busy machine is no failure
settings.load_profile("conformance")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
