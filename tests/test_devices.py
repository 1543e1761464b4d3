"""One answer to device, threads and number type."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from facecaption_ml.devices import autocast, compute_dtype, has_bfloat16, resolve_device
from facecaption_ml.errors import FaceCaptionError


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cuda") == "cuda"


def test_threads_are_set_on_purpose_or_left_alone() -> None:
    before = torch.get_num_threads()
    try:
        resolve_device("cpu", 1)
        assert torch.get_num_threads() == 1
        resolve_device("cpu")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="the processor's flags are read from Linux")
def test_bfloat16_is_what_the_processor_says() -> None:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    assert has_bfloat16("cpu") == ("avx512_bf16" in flags or "amx_bf16" in flags)
    assert has_bfloat16(torch.device("cpu")) == has_bfloat16("cpu")


def test_the_number_type_follows_from_word_and_device() -> None:
    assert compute_dtype("auto", "cpu") is (torch.bfloat16 if has_bfloat16("cpu") else torch.float32)
    assert compute_dtype("bf16", "cpu") is torch.bfloat16
    assert compute_dtype("fp32", torch.device("cpu")) is torch.float32
    with pytest.raises(FaceCaptionError, match=r"'half'.*auto, bf16, fp16, fp32"):
        compute_dtype("half", "cpu")
    with pytest.raises(FaceCaptionError, match="needs a GPU"):
        compute_dtype("fp16", "cpu")


def test_autocast_does_nothing_for_float32() -> None:
    x = torch.ones(2, 2)
    with autocast(torch.float32, "cpu"):
        assert (x @ x).dtype is torch.float32
    with autocast(torch.bfloat16, "cpu"):
        assert (x @ x).dtype is torch.bfloat16
